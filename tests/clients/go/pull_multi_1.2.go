//go:build api12

// From 1.2 a download may run in several streams, with the numbers that the command lines use.
package main

import (
	"context"
	"os"

	"github.com/sylabs/scs-library-client/client"
)

func pullMulti(ctx context.Context, c *client.Client, f *os.File, path, tag, arch string) error {
	return c.ConcurrentDownloadImage(ctx, f, arch, path, tag, &client.Downloader{Concurrency: 3, PartSize: 5 << 20, BufferSize: 32 << 10}, nil)
}
