//go:build !api02

// From 0.4 a download names its architecture.
package main

import (
	"context"
	"os"

	"github.com/sylabs/scs-library-client/client"
)

func pull(ctx context.Context, c *client.Client, f *os.File, path, tag, arch string) error {
	return c.DownloadImage(ctx, f, arch, path, tag, nil)
}
