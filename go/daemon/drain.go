package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/service"
)

// drain stops accepting clients and waits until connections through proxies and commands of control clients have ended, no
// longer than limit. Links stay, so that what is under way gets through. See the package documentation for what counts.
func (d *Daemon) drain(limit time.Duration) {
	if limit == 0 {
		return
	}
	d.reloading.Lock()
	defer d.reloading.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	d.log.Info("Waiting for clients to finish", "at_most", limit.String())
	var wg sync.WaitGroup
	for _, p := range d.pieces {
		switch c := p.closer.(type) {
		case *service.Proxy:
			wg.Go(func() { c.Drain(ctx) })
		case listeners:
			_ = c.Close()
		}
	}
	wg.Go(func() { d.Control.Drain(ctx) })
	wg.Wait()
	if ctx.Err() != nil {
		d.log.Warn("Some clients did not finish in time")
	}
}
