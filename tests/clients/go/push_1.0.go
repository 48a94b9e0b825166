//go:build api10 || api12

// From 1.0 an upload gives back the quota and the page of the container.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/sylabs/scs-library-client/client"
)

func push(ctx context.Context, c *client.Client, f *os.File, path, tag, arch string, p *progress) error {
	done, err := c.UploadImage(ctx, f, path, arch, []string{tag}, "", p)
	if err != nil {
		return err
	}
	// Nothing comes back when the library had the bytes already.
	if done != nil {
		fmt.Printf("quota: %d of %d, page: %s\n", done.Quota.QuotaUsageBytes, done.Quota.QuotaTotalBytes, done.ContainerURL)
	}
	return nil
}
