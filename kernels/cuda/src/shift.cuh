// The K-shift of a linear's output: which channels it moves, and by how many tokens.
#pragma once

// Channels from ... to - 1 of token t become y[t - offset], plus y[t] when self is 1. y before the start of t's
// document is 0.
struct Shift {
  int from, to, offset, self;
  int seq;            // rows of a sequence
  const int* starts;  // [rows]: where in its sequence the row's document starts; null: 0
};
