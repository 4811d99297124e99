package main

import (
	"context"
	"sync"

	"bitnet1/shared/run/stage"
)

// Steps of the stage in the file of times.
const (
	stepDecode   = "decode"
	stepFilter   = "filter"
	stepTokenize = "tokenize"
	stepWrite    = "write"
)

// inOrder runs a pipeline of three: read makes blocks, threads goroutines work on them, and each takes the blocks in
// their order. The order, and with it the result, does not depend on threads.
func inOrder(ctx context.Context, work func(*block), threads int, times *stage.Times,
	read func(ctx context.Context, give func(*block) error) error, each func(*block) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	todo, ordered := make(chan *block), make(chan *block, threads)
	for range threads {
		all.Go(func() {
			for b := range todo {
				times.Do(stepTokenize, func() { work(b) })
				close(b.done)
			}
		})
	}
	var readErr error
	all.Go(func() {
		defer close(ordered)
		defer close(todo)
		readErr = read(ctx, func(b *block) error {
			b.done = make(chan struct{})
			for _, to := range []chan *block{todo, ordered} {
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
