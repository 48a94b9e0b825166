//go:build api04

// Up to 0.5 an upload gives back nothing but an error.
package main

import (
	"context"
	"os"

	"github.com/sylabs/scs-library-client/client"
)

func push(ctx context.Context, c *client.Client, f *os.File, path, tag, arch string, p *progress) error {
	return c.UploadImage(ctx, f, path, arch, []string{tag}, "No Description", p)
}
