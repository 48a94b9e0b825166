//go:build api02

// The library in 0.2 and 0.3 knows no architectures.
package main

import (
	"context"
	"os"

	"github.com/sylabs/scs-library-client/client"
)

func push(ctx context.Context, c *client.Client, f *os.File, path, tag, _ string, p *progress) error {
	return c.UploadImage(ctx, f, path, []string{tag}, "No Description", p)
}

func pull(ctx context.Context, c *client.Client, f *os.File, path, tag, _ string) error {
	return c.DownloadImage(ctx, f, path, tag, nil)
}
