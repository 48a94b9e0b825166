// Pushes or pulls one image with the client library it is built against: prog push|pull|pull-multi URL TOKEN FILE entity/collection/container:tag ARCH.
// An empty TOKEN is anonymous. What differs between versions of the library stands in the files beside this one, chosen by build tag.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sylabs/scs-library-client/client"
)

// errNotInThisVersion ends the program with status 3, so that a script can tell "can't" from "failed".
var errNotInThisVersion = errors.New("this version of the library has no such call")

// progress is the callback the command lines pass for their progress bar: it sees the bytes on their way.
type progress struct {
	reader   io.Reader
	size     int64
	finished bool
}

func (p *progress) InitUpload(size int64, r io.Reader) { p.size, p.reader = size, r }
func (p *progress) GetReader() io.Reader               { return p.reader }
func (p *progress) Terminate()                         {}
func (p *progress) Finish()                            { p.finished = true }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, errNotInThisVersion) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 6 {
		return errors.New("usage: prog push|pull|pull-multi URL TOKEN FILE REF ARCH")
	}
	verb, url, token, file, ref, arch := args[0], args[1], args[2], args[3], args[4], args[5]
	path, tag, found := strings.Cut(ref, ":")
	if !found {
		return fmt.Errorf("`%s` names no tag", ref)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := client.NewClient(&client.Config{BaseURL: url, AuthToken: token, UserAgent: "library-client-test/1.0"})
	if err != nil {
		return err
	}

	if verb == "push" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		return push(ctx, c, f, path, tag, arch, &progress{})
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	switch verb {
	case "pull":
		return pull(ctx, c, f, path, tag, arch)
	case "pull-multi":
		return pullMulti(ctx, c, f, path, tag, arch)
	}
	return fmt.Errorf("`%s` is not push, pull or pull-multi", verb)
}
