package wire

import (
	"encoding/json"
	"strings"
	"unicode"
)

// maxReason bounds the text of a reject, in runes: it ends in logs and in what people are shown.
const maxReason = 300

// RejectMessage is the whole reject message as peers of the base protocol send it: without a reason.
var RejectMessage = []byte{byte(TypeReject), '[', ']'}

// RejectFor is a reject message that says why: a word for programs and a text for people.
func RejectFor(kind, text string) []byte {
	reason, err := json.Marshal([]string{kind, printable(text)})
	if err != nil { // Strings always encode.
		return RejectMessage
	}
	return append([]byte{byte(TypeReject)}, reason...)
}

// RejectReason reads what [RejectFor] writes, both empty if the peer gave no reason. What it returns is printable and short.
func RejectReason(msg []byte) (kind, text string) {
	if len(msg) == 0 || len(msg) > 8*maxReason {
		return "", ""
	}
	var reason []string
	if json.Unmarshal(msg[1:], &reason) != nil || len(reason) < 2 {
		return "", ""
	}
	return printable(reason[0]), printable(reason[1])
}

func printable(text string) string {
	left := maxReason
	return strings.Map(func(r rune) rune {
		if left--; left < 0 || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
}
