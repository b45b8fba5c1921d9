package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// The outcomes of an operation.
const (
	// done: etcd answered; a read found Found, a write took effect.
	done = "done"
	// differs: a compare-and-swap found another value, Found, and changed nothing.
	differs = "differs"
	// unknown: no answer, or one that tells nothing: a write may take effect at any later time, or never.
	unknown = "unknown"
	// none: it certainly had no effect, so there is nothing to check.
	none = "none"
)

// operation is one line of a history. Times are nanoseconds of one monotonic clock; values are unique for each write.
//
// Kind is put, get or cas. Value is what a put or cas writes; Expected is what a cas compares with, Found what a get or a
// cas that differs found; nil where there is no such key. Revision is that of etcd's answer's header, Modified the
// revision at which the value found was written; 0 where it was not told.
type operation struct {
	Client   int     `json:"client"`
	Kind     string  `json:"kind"`
	Key      string  `json:"key"`
	Value    string  `json:"value"`
	Expected *string `json:"expected"`
	Outcome  string  `json:"outcome"`
	Found    *string `json:"found"`
	Revision int64   `json:"revision"`
	Modified int64   `json:"modified"`
	Member   string  `json:"member"`
	Call     int64   `json:"call"`
	Return   int64   `json:"return"`
}

func (op operation) writes() bool {
	return op.Kind != "get"
}

// read returns the operations of a file that may have had an effect or that read something, or what is wrong with it.
func read(path string) ([]operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var history []operation
	written := map[string]bool{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		var op operation
		if err := json.Unmarshal(lines.Bytes(), &op); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if err := check(op); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if op.writes() {
			if written[op.Value] {
				return nil, fmt.Errorf("line %d: the value %q was written before", number, op.Value)
			}
			written[op.Value] = true
		}
		if op.Outcome != none && (op.writes() || op.Outcome != unknown) {
			history = append(history, op)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(history) == 0 {
		return nil, errors.New("there is not one operation to check")
	}
	return history, nil
}

func check(op operation) error {
	allowed := map[string]map[string]bool{
		"put": {done: true, unknown: true, none: true},
		"get": {done: true, unknown: true, none: true},
		"cas": {done: true, differs: true, unknown: true, none: true},
	}
	switch {
	case !allowed[op.Kind][op.Outcome]:
		return fmt.Errorf("no such operation: %q that ends %q", op.Kind, op.Outcome)
	case op.Key == "" || op.writes() && op.Value == "":
		return errors.New("an operation without a key, or a write without a value")
	case op.Return < op.Call:
		return errors.New("it returned before it was called")
	}
	return nil
}
