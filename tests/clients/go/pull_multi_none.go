//go:build !api12

// Before 1.2 there is one stream only.
package main

import (
	"context"
	"os"

	"github.com/sylabs/scs-library-client/client"
)

func pullMulti(context.Context, *client.Client, *os.File, string, string, string) error {
	return errNotInThisVersion
}
