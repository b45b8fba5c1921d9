package main

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

// value is what a key holds; the zero value is that of a key that does not exist.
type value struct {
	exists bool
	text   string
}

func of(text *string) value {
	if text == nil {
		return value{}
	}
	return value{exists: true, text: *text}
}

// register is Porcupine's model of one key. As every write writes a value of its own, comparing values is as strict as
// comparing revisions, and a compare-and-swap of which nobody knows how it ended does what the state says: it can be
// put where its comparison fails, or last of all, where nobody sees what it did. So a model without choices will do.
var register = porcupine.Model{
	Init: func() any { return value{} },
	Step: func(state, input, _ any) (bool, any) { return step(state.(value), input.(operation)) },
	DescribeOperation: func(input, _ any) string {
		return describe(input.(operation))
	},
	DescribeState: func(state any) string {
		if held := state.(value); held.exists {
			return held.text
		}
		return "(no such key)"
	},
}

// step tells whether an operation can have ended as it did in this state, and the state after it.
func step(held value, op operation) (bool, value) {
	switch op.Kind {
	case "get":
		return held == of(op.Found), held
	case "put":
		return true, of(&op.Value)
	}
	equal := held == of(op.Expected)
	switch {
	case op.Outcome == differs:
		return !equal && held == of(op.Found), held
	case equal:
		return true, of(&op.Value)
	default:
		return op.Outcome == unknown, held
	}
}

// intervals turns one key's history into Porcupine's: what nobody knows the end of lasts until after all else.
func intervals(history []operation) []porcupine.Operation {
	end, clients := int64(math.MinInt64), 0
	for _, op := range history {
		end, clients = max(end, op.Return), max(clients, op.Client)
	}
	all := make([]porcupine.Operation, 0, len(history))
	for _, op := range history {
		one := porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: op.Return}
		if op.Outcome == unknown {
			clients++ // a row of its own in a picture, as its client goes on
			one.ClientId, one.Return = clients, end+1
		}
		all = append(all, one)
	}
	return all
}

func describe(op operation) string {
	switch op.Kind {
	case "get":
		return fmt.Sprintf("get: %s (%s, revision %d)", text(op.Found), op.Member, op.Revision)
	case "put":
		return fmt.Sprintf("put %s: %s (%s, revision %d)", op.Value, op.Outcome, op.Member, op.Revision)
	}
	ended := op.Outcome
	if op.Outcome == differs {
		ended = "is " + text(op.Found)
	}
	return fmt.Sprintf("swap %s for %s: %s (%s, revision %d)", text(op.Expected), op.Value, ended, op.Member, op.Revision)
}

func text(found *string) string {
	if found == nil {
		return "nothing"
	}
	return *found
}
