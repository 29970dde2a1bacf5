// Evaluates values in jsonnet for xtask, one file after another.
//
// It reads no file and no variable of its environment. On stdin comes a request for each file:
//
//	{"file": "/repository/helm-charts/basehub/values.jsonnet", "variables": {"XTASK_CLUSTER_NAME": "lake"}}
//
// What that file imports is asked for on stdout, and each path once:
//
//	{"read": "/repository/helm-charts/basehub/lib.libsonnet"}
//
// with one of three answers, the first of which is followed by that many bytes:
//
//	{"length": 123}
//	{"missing": true}
//	{"refused": "why"}
//
// At the end comes what was made or why nothing was, as `length` bytes after a line that has all paths that the file came
// from:
//
//	{"made": {"length": 123, "paths": [...], "places": {"KEY": {"file": "/repository/...", "line": 1, "column": 2, "below": {...}}}}}
//	{"failed": {"length": 123, "paths": [...], "file": "/repository/...", "line": 1, "column": 2}}
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sort"
	"strings"

	"github.com/google/go-jsonnet"
	"github.com/google/go-jsonnet/ast"
)

// Set when this is built.
var version = "unknown"

// The parent ends this program when it has more than 512 MiB. Before that the garbage collector works harder, and a parser
// that goes too deep ends by itself.
const (
	softLimit = 256 << 20
	maxStack  = 128 << 20
)

type request struct {
	File      string            `json:"file"`
	Variables map[string]string `json:"variables"`
}

type answer struct {
	Length  int    `json:"length"`
	Missing bool   `json:"missing"`
	Refused string `json:"refused"`
}

type result struct {
	Made   *report `json:"made,omitempty"`
	Failed *report `json:"failed,omitempty"`
}

type report struct {
	Length int      `json:"length"`
	Paths  []string `json:"paths"`
	Places places   `json:"places,omitempty"`
	place
}

// Where an evaluation failed. There is no line if that is not known.
type place struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// The parent, which has the repository's files.
type repository struct {
	in  *bufio.Reader
	out *bufio.Writer
	// What was answered, by path: a repository does not change meanwhile.
	known map[string]file
	// The folder of the file that is evaluated.
	library string
	// All paths that this file has asked for.
	asked map[string]bool
}

type file struct {
	contents jsonnet.Contents
	exists   bool
	refused  string
}

// Import looks where go-jsonnet's own importer looks: beside the file that imports, and then in the library's folder.
func (r *repository) Import(from, path string) (jsonnet.Contents, string, error) {
	folder, _ := filepath.Split(from)
	for _, folder := range []string{folder, r.library} {
		full := absolute(folder, path)
		found, err := r.read(full)
		if err != nil {
			return jsonnet.Contents{}, "", err
		}
		if found.refused != "" {
			return jsonnet.Contents{}, "", fmt.Errorf("cannot import %q: %s", path, found.refused)
		}
		if found.exists {
			return found.contents, full, nil
		}
	}
	return jsonnet.Contents{}, "", fmt.Errorf("cannot import %q: it is neither beside this file nor in %q", path, r.library)
}

func absolute(folder, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(folder, path)
}

func (r *repository) read(path string) (file, error) {
	r.asked[path] = true
	if known, ok := r.known[path]; ok {
		return known, nil
	}
	if err := r.send(map[string]string{"read": path}); err != nil {
		return file{}, err
	}
	var told answer
	if err := r.receive(&told); err != nil {
		return file{}, err
	}
	found := file{exists: !told.Missing, refused: told.Refused}
	if found.exists && found.refused == "" {
		content := make([]byte, told.Length)
		if _, err := io.ReadFull(r.in, content); err != nil {
			return file{}, err
		}
		found.contents = jsonnet.MakeContentsRaw(content)
	}
	r.known[path] = found
	return found, nil
}

func (r *repository) receive(message any) error {
	line, err := r.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, message)
}

func (r *repository) send(message any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return err
	}
	r.out.Write(line)
	r.out.WriteByte('\n')
	return r.out.Flush()
}

// Remembers where an evaluation failed.
type failure struct {
	place   place
	message string
}

func (f *failure) Format(err error) string {
	f.message = err.Error()
	var failed jsonnet.RuntimeError
	var static interface{ Loc() ast.LocationRange }
	if errors.As(err, &failed) {
		f.message = failed.Msg
		for _, frame := range failed.StackTrace {
			// The standard library has no file.
			if strings.HasPrefix(frame.Loc.FileName, "/") {
				f.set(frame.Loc)
			}
		}
	} else if errors.As(err, &static) {
		loc := static.Loc()
		// It may be there twice.
		f.message = strings.ReplaceAll(f.message, loc.String()+" ", "")
		f.set(loc)
	} else {
		// The rest is where go-jsonnet was when it gave up.
		f.message, _, _ = strings.Cut(f.message, "\n")
	}
	return f.message
}

func (f *failure) set(loc ast.LocationRange) {
	f.place = place{File: loc.FileName, Line: loc.Begin.Line, Column: loc.Begin.Column}
}

func (f *failure) SetMaxStackTraceSize(int) {}

func (f *failure) SetColorFormatter(jsonnet.ColorFormatter) {}

func (r *repository) evaluate(vm *jsonnet.VM, wanted request) error {
	r.library = filepath.Dir(wanted.File)
	r.asked = map[string]bool{}
	failed := failure{place: place{File: wanted.File}}
	vm.ErrorFormatter = &failed
	vm.ExtReset()
	for name, value := range wanted.Variables {
		vm.ExtVar(name, value)
	}
	text, err := vm.EvaluateFile(wanted.File)
	told := report{}
	sent := result{Made: &told}
	if err != nil {
		text = err.Error()
		told.place = failed.place
		sent = result{Failed: &told}
	} else {
		told.Places = findPlaces(r, vm, wanted.File, text)
	}
	told.Length = len(text)
	for path := range r.asked {
		told.Paths = append(told.Paths, path)
	}
	sort.Strings(told.Paths)
	if err := r.send(sent); err != nil {
		return err
	}
	r.out.WriteString(text)
	return r.out.Flush()
}

func main() {
	if len(os.Args) > 1 {
		fmt.Println(version)
		return
	}
	// Most of what an evaluation makes is gone after it: collecting it less often saves a quarter of the time.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(softLimit)
	debug.SetMaxStack(maxStack)
	r := &repository{
		in:    bufio.NewReader(os.Stdin),
		out:   bufio.NewWriter(os.Stdout),
		known: map[string]file{},
	}
	vm := jsonnet.MakeVM()
	vm.Importer(r)
	vm.SetTraceOut(io.Discard)
	for {
		var wanted request
		if err := r.receive(&wanted); err != nil {
			return
		}
		if err := r.evaluate(vm, wanted); err != nil {
			return
		}
	}
}
