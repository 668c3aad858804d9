// What `kind load` does on a node, by kind's own code: this machine is the node. Loads an archive, gives its image
// a further name by its id, and says in one line of JSON what kind then finds.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"sigs.k8s.io/kind/pkg/cluster/nodeutils"
	"sigs.k8s.io/kind/pkg/exec"
)

// A node whose commands run here.
type node struct{ exec.Cmder }

func (node) String() string              { return "here" }
func (node) Role() (string, error)       { return "control-plane", nil }
func (node) IP() (string, string, error) { return "127.0.0.1", "", nil }
func (node) SerialLogs(io.Writer) error  { return nil }

type found struct {
	ID   string
	Tags map[string]bool
}

// ARCHIVE NAME-IN-IT FURTHER-NAME
func load(words []string) (found, error) {
	here, result := node{exec.DefaultCmder}, found{}
	archive, err := os.Open(words[0])
	if err != nil {
		return result, err
	}
	defer archive.Close()
	if err := nodeutils.LoadImageArchive(here, archive); err != nil {
		return result, fmt.Errorf("load: %w", err)
	}
	if result.ID, err = nodeutils.ImageID(here, words[1]); err != nil {
		return result, fmt.Errorf("id: %w", err)
	}
	if err := nodeutils.ReTagImage(here, result.ID, words[2]); err != nil {
		return result, fmt.Errorf("tag: %w", err)
	}
	result.Tags, err = nodeutils.ImageTags(here, result.ID)
	return result, err
}

func main() {
	result, err := load(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
