// Makes a SIF file with one system partition of random bytes: mksif FILE ARCH_CODE SIZE. Enough for a library, which looks at headers only.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// The layout is that of the SIF specification: little-endian, packed.
type header struct {
	Launch                                      [32]byte
	Magic                                       [10]byte
	Version, Arch                               [3]byte
	ID                                          [16]byte
	Created, Modified                           int64
	Free, Total, Table, TableSize, Data, Length int64
}

type descriptor struct {
	Type                      int32
	Used                      bool
	ID, Group, Link           uint32
	Offset, Size, Padded      int64
	Created, Modified         int64
	UID, GID                  int64
	Name                      [128]byte
	FileSystem, PartitionType int32
	Arch                      [3]byte
	Rest                      [373]byte
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: mksif FILE ARCH_CODE SIZE")
	}
	size, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	const table, count, each = 4096, 48, 585
	const data = table + count*each
	now := time.Now().Unix()
	h := header{Created: now, Modified: now, Free: count - 1, Total: count, Table: table, TableSize: count * each, Data: data, Length: size - data}
	copy(h.Launch[:], "#!/usr/bin/env run-singularity\n")
	copy(h.Magic[:], "SIF_MAGIC")
	copy(h.Version[:], "01")
	copy(h.Arch[:], args[1])
	rand.Read(h.ID[:])
	d := descriptor{Type: 0x4004, Used: true, ID: 1, Group: 0xF0000001, Offset: data, Size: size - data, Padded: size - data, Created: now, Modified: now, FileSystem: 1, PartitionType: 2}
	copy(d.Arch[:], args[1])

	var head bytes.Buffer
	binary.Write(&head, binary.LittleEndian, h)
	head.Write(make([]byte, table-head.Len()))
	binary.Write(&head, binary.LittleEndian, d)
	head.Write(make([]byte, data-head.Len()))

	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(head.Bytes()); err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, size-data)
	return err
}
