// Judges a history of etcd operations, recorded by concurrent clients: is it linearizable?
//
//	linearizability [-timeout 5m] [-html FOLDER] HISTORY.jsonl
//
// Prints one line of JSON, see report. Each key is checked as a register by Porcupine, then the revisions that etcd told
// are checked over all keys (revisions.go). Ends with 0 when nothing speaks against it, 1 when it is not linearizable,
// 2 when time ran out before that was known, 3 when the file is no such history.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// The verdicts.
const (
	linearizable    = "Linearizable"
	notLinearizable = "NotLinearizable"
	undecided       = "Undecided"
)

// maxReasons limits how many findings of a kind are told; the first one is what a person looks into.
const maxReasons = 10

// report is what is printed.
//
// Operations counts what was checked, Unknown those among it whose outcome no client knows. Reasons say what is wrong,
// or which keys were not decided; Pictures are HTML files that show the keys that are not linearizable.
type report struct {
	Verdict    string   `json:"verdict"`
	Operations int      `json:"operations"`
	Unknown    int      `json:"unknown"`
	Keys       int      `json:"keys"`
	Seconds    float64  `json:"seconds"`
	Reasons    []string `json:"reasons"`
	Pictures   []string `json:"pictures"`
}

func main() {
	timeout := flag.Duration("timeout", 5*time.Minute, "for the whole check")
	folder := flag.String("html", "", "where to draw the keys that are not linearizable")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(3)
	}
	history, err := read(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "linearizability:", err)
		os.Exit(3)
	}
	told, err := judge(history, *timeout, *folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, "linearizability:", err)
		os.Exit(3)
	}
	line, _ := json.Marshal(told)
	fmt.Println(string(line))
	os.Exit(map[string]int{linearizable: 0, notLinearizable: 1, undecided: 2}[told.Verdict])
}

// judge checks key after key, then the revisions. A verdict other than linearizable never becomes better by what follows.
func judge(history []operation, timeout time.Duration, folder string) (report, error) {
	began := time.Now()
	told := report{Verdict: linearizable, Operations: len(history), Reasons: []string{}, Pictures: []string{}}
	for _, done := range history {
		if done.Outcome == unknown {
			told.Unknown++
		}
	}
	byKey := split(history)
	told.Keys = len(byKey)
	for _, key := range sorted(byKey) {
		left := timeout - time.Since(began)
		if left <= 0 { // to Porcupine, no time is no limit
			told.worsen(undecided, "key "+key+": not checked, time ran out")
			continue
		}
		result, info := porcupine.CheckOperationsVerbose(register, intervals(byKey[key]), left)
		switch result {
		case porcupine.Ok:
		case porcupine.Unknown:
			told.worsen(undecided, "key "+key+": time ran out")
		default:
			told.worsen(notLinearizable, "key "+key+" has no order of its operations that explains what clients saw")
			if folder != "" && len(told.Pictures) < maxReasons {
				path := filepath.Join(folder, "key-"+key+".html")
				if err := porcupine.VisualizePath(register, info, path); err != nil {
					return told, err
				}
				told.Pictures = append(told.Pictures, path)
			}
		}
	}
	for _, wrong := range revisionsWrong(history) {
		told.worsen(notLinearizable, wrong)
	}
	told.Seconds = time.Since(began).Seconds()
	return told, nil
}

// worsen notes a finding; what is proved wrong stays wrong, whatever else could not be decided.
func (told *report) worsen(verdict, reason string) {
	if told.Verdict != notLinearizable {
		told.Verdict = verdict
	}
	if len(told.Reasons) < 2*maxReasons {
		told.Reasons = append(told.Reasons, reason)
	}
}

func split(history []operation) map[string][]operation {
	byKey := map[string][]operation{}
	for _, done := range history {
		byKey[done.Key] = append(byKey[done.Key], done)
	}
	return byKey
}

func sorted(byKey map[string][]operation) []string {
	keys := make([]string, 0, len(byKey))
	for key := range byKey {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
