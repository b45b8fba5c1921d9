package main

import (
	"fmt"
	"sort"
)

// revisionsWrong checks what etcd promises beyond each key: all writes have one order, their revisions, and no answer
// tells of an older state than one that was complete before it was asked for. A key-by-key check does not see that.
func revisionsWrong(history []operation) []string {
	told := make([]operation, 0, len(history))
	for _, op := range history {
		if op.Outcome != unknown && op.Revision != 0 {
			told = append(told, op)
		}
	}
	wrong := append(sharedRevisions(told), wrongOrigins(told)...)
	return append(wrong, turnedBack(told)...)
}

// wrote tells whether an operation certainly made a revision of its own.
func wrote(op operation) bool {
	return op.writes() && op.Outcome == done
}

// sharedRevisions finds writes that got the same revision.
func sharedRevisions(told []operation) (wrong []string) {
	owner := map[int64]operation{}
	for _, op := range told {
		if !wrote(op) {
			continue
		}
		if other, taken := owner[op.Revision]; taken && len(wrong) < maxReasons {
			wrong = append(wrong, fmt.Sprintf("two writes got revision %d: %s %s and %s %s",
				op.Revision, other.Key, other.Value, op.Key, op.Value))
		}
		owner[op.Revision] = op
	}
	return wrong
}

// wrongOrigins finds values that were told to have been written at different revisions, or later than the answer.
func wrongOrigins(told []operation) (wrong []string) {
	origin := map[string]int64{}
	note := func(text string, revision int64) {
		if known, seen := origin[text]; seen && known != revision && len(wrong) < maxReasons {
			wrong = append(wrong, fmt.Sprintf("%s was written at revision %d, and at %d", text, known, revision))
		}
		origin[text] = revision
	}
	for _, op := range told {
		switch {
		case wrote(op):
			note(op.Value, op.Revision)
		case op.Found != nil && op.Modified != 0:
			note(*op.Found, op.Modified)
			if op.Modified > op.Revision && len(wrong) < maxReasons {
				wrong = append(wrong, fmt.Sprintf("%s told as written at revision %d in an answer of revision %d",
					*op.Found, op.Modified, op.Revision))
			}
		}
	}
	return wrong
}

// turnedBack finds answers that are older than one that had been given before they were asked for.
func turnedBack(told []operation) (wrong []string) {
	called, returned := append([]operation{}, told...), append([]operation{}, told...)
	sort.Slice(called, func(a, b int) bool { return called[a].Call < called[b].Call })
	sort.Slice(returned, func(a, b int) bool { return returned[a].Return < returned[b].Return })
	var newest operation
	next := 0
	for _, op := range called {
		for ; next < len(returned) && returned[next].Return < op.Call; next++ {
			if returned[next].Revision > newest.Revision {
				newest = returned[next]
			}
		}
		if op.Revision < newest.Revision || wrote(op) && op.Revision == newest.Revision {
			if wrong = append(wrong, fmt.Sprintf("%s %s through %s got revision %d, %d ns after %s %s through %s had got %d",
				op.Kind, op.Key, op.Member, op.Revision, op.Call-newest.Return,
				newest.Kind, newest.Key, newest.Member, newest.Revision)); len(wrong) == maxReasons {
				return wrong
			}
		}
	}
	return wrong
}
