package main

import (
	"context"
	"sync"

	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/run/stage"
)

// Steps of the stage in the file of times.
const (
	stepDecode   = "decode"
	stepFilter   = "filter"
	stepTokenize = "tokenize"
	stepWrite    = "write"
)

// encode runs a pipeline of three: read makes blocks, threads goroutines encode them, and each takes the encoded blocks
// in their order. The order, and with it the result, does not depend on threads.
func encode(ctx context.Context, t tokenizer.Tokenizer, threads int, times *stage.Times,
	read func(ctx context.Context, give func(*block) error) error, each func(*block) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	work, ordered := make(chan *block), make(chan *block, threads)
	for range threads {
		all.Go(func() {
			for b := range work {
				times.Do(stepTokenize, func() { b.encode(t) })
				close(b.done)
			}
		})
	}
	var readErr error
	all.Go(func() {
		defer close(ordered)
		defer close(work)
		readErr = read(ctx, func(b *block) error {
			b.done = make(chan struct{})
			for _, to := range []chan *block{work, ordered} {
				select {
				case to <- b:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	for b := range ordered {
		select {
		case <-b.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := each(b); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return readErr // written before ordered was closed
}
