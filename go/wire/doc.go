// Package wire turns the bytes that two mesh neighbours exchange into values and back.
//
// It does no I/O, starts no goroutines and keeps no state, so every function is safe for concurrent use. The byte-level
// page is README.md in this folder.
//
// A message is a byte string whose first byte is its [Type]. Links carry messages of 1 to [MaxMessage] bytes; on byte
// streams each has a two-byte little-endian length in front ([AppendFrame], [Batch]).
package wire
