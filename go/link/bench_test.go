package link

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// BenchmarkMessages measures messages per second through a link, 64 KiB of them per batch as a busy node writes them.
func BenchmarkMessages(b *testing.B) {
	for _, tr := range transports(b) {
		for _, size := range []int{36, 1500, 16384} {
			b.Run(fmt.Sprintf("%s/%d", tr.name, size), func(b *testing.B) {
				near, far := tr.link(b)
				var batch wire.Batch
				count := max(1, 64<<10/size)
				for range count {
					batch = append(batch, frames(strings.Repeat("x", size))...)
				}
				received := make(chan int, 1)
				go func() {
					n := 0
					defer func() { received <- n }()
					for {
						got, err := far.ReadBatch()
						if err != nil {
							return
						}
						for _, rest, ok := got.Next(); ok; _, rest, ok = rest.Next() {
							n++
						}
						if !tr.lossy && n >= (b.N+count-1)/count*count {
							return
						}
					}
				}()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for sent := 0; sent < b.N; sent += count {
					if err := near.WriteBatch(batch); err != nil {
						b.Fatal(err)
					}
				}
				if tr.lossy {
					_ = far.Close()
				}
				n := <-received
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}
