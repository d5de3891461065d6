package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/minio/highwayhash"
)

// NodeID names a node: any non-empty UTF-8 string, compared byte for byte.
type NodeID string

// At is the node that is meant by a name where own is the node: "localhost", in any letter case, is own.
func (id NodeID) At(own NodeID) NodeID {
	if len(id) == len("localhost") && strings.EqualFold(string(id), "localhost") {
		return own
	}
	return id
}

// NodeHash is the 64-bit HighwayHash of a [NodeID] under an all-zero key. Data messages carry hashes, not names.
type NodeHash uint64

// Type is the first byte of every message.
type Type byte

// The message types. A peer that sends any other value is tolerated: the message is ignored.
const (
	TypeData   Type = 0 // Binary, [Header] then payload.
	TypeRoute  Type = 1 // JSON, [RouteUpdate]; also the handshake message.
	TypeAdvert Type = 2 // JSON, [Advertisement].
	TypeReject Type = 3 // The receiver closes the link. "[]" is sent; between two of ours a reason may stand in it.
	TypeBeat   Type = 4 // Says that the sender lives, see [AskMessage]. Only between neighbours that both announced it ([RouteUpdate.KeepAlive]).
	TypeGone   Type = 5 // JSON, [Withdrawal]. Only between such neighbours.
)

// String returns the name of the type, or its number.
func (t Type) String() string {
	switch t {
	case TypeData:
		return "data"
	case TypeRoute:
		return "route"
	case TypeAdvert:
		return "advertisement"
	case TypeReject:
		return "reject"
	case TypeGone:
		return "withdrawal"
	}
	return strconv.Itoa(int(t))
}

const (
	// MaxMessage is the longest message that every link can carry, in bytes (a TCP frame's length field is 16 bits).
	MaxMessage = 65535
	// HeaderSize is the length of a data message's header, type byte included.
	HeaderSize = 36
	// MaxPayload is the longest payload of a data message.
	MaxPayload = MaxMessage - HeaderSize
	// MaxService is the longest service name, in bytes.
	MaxService = 8
	// MaxHops is the hop budget of a locally originated packet; the originator decrements it before the first link.
	MaxHops = 30
	// MaxLinkCost is the highest cost that a link can be given: far below where adding to a sum of costs changes nothing.
	MaxLinkCost = 1e9
)

// Errors of the parsers. They are wrapped with what was found.
var (
	ErrShort         = errors.New("message too short")
	ErrType          = errors.New("unexpected message type")
	ErrServiceLength = errors.New("service name too long")
	ErrFrameLength   = errors.New("message does not fit in a frame")
)

// BeatMessage is the whole keep-alive message, AskMessage the one that asks for another in return.
var (
	BeatMessage = []byte{byte(TypeBeat)}
	AskMessage  = []byte{byte(TypeBeat), 1}
)

// AsksBack reports whether a keep-alive message asks for one in return.
func AsksBack(beat []byte) bool { return len(beat) > 1 && beat[1] == 1 }

var zeroKey [32]byte

// Hash returns the hash that stands for id in data messages.
func Hash(id NodeID) NodeHash {
	return NodeHash(highwayhash.Sum64(unsafe.Slice(unsafe.StringData(string(id)), len(id)), zeroKey[:]))
}

// ServiceName is a service as a data message carries it: up to eight bytes, padded with NUL on the right. It is a
// comparable value, so it keys maps without allocating. Trailing NULs cannot be represented.
type ServiceName [MaxService]byte

// Service packs a service name.
func Service(name string) (ServiceName, error) {
	var s ServiceName
	if len(name) > MaxService {
		return s, fmt.Errorf("%w: %q has %d bytes, at most %d fit", ErrServiceLength, name, len(name), MaxService)
	}
	copy(s[:], name)
	return s, nil
}

// String returns the name without its padding.
func (s ServiceName) String() string {
	end := MaxService
	for end > 0 && s[end-1] == 0 {
		end--
	}
	return string(s[:end])
}

// Header is the fixed part of a data message. All integers are big-endian on the wire.
//
//	offset 0  1 byte   type 00
//	       1  1 byte   hops to live
//	       2  2 bytes  reserved: sent as zero, ignored on receipt, zeroed when forwarded
//	       4  8 bytes  hash of the source node
//	      12  8 bytes  hash of the destination node
//	      20  8 bytes  source service
//	      28  8 bytes  destination service
//	      36  payload
type Header struct {
	Hops        uint8
	From, To    NodeHash
	FromService ServiceName
	ToService   ServiceName
}

// ParseHeader reads the header of a whole data message in place; the payload is msg[HeaderSize:].
func ParseHeader(msg []byte) (Header, error) {
	if len(msg) < HeaderSize {
		return Header{}, fmt.Errorf("%w: data message of %d bytes, header needs %d", ErrShort, len(msg), HeaderSize)
	}
	if Type(msg[0]) != TypeData {
		return Header{}, fmt.Errorf("%w: %s, want data", ErrType, Type(msg[0]))
	}
	return Header{
		Hops:        msg[1],
		From:        NodeHash(binary.BigEndian.Uint64(msg[4:12])),
		To:          NodeHash(binary.BigEndian.Uint64(msg[12:20])),
		FromService: ServiceName(msg[20:28]),
		ToService:   ServiceName(msg[28:36]),
	}, nil
}

// AppendTo appends the 36 header bytes to dst; the caller appends the payload.
func (h Header) AppendTo(dst []byte) []byte {
	dst = append(dst, byte(TypeData), h.Hops, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.From))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.To))
	dst = append(dst, h.FromService[:]...)
	return append(dst, h.ToService[:]...)
}

// PatchHops rewrites the hop count of a data message in place and zeroes the reserved bytes, as every hop does.
// msg must have passed [ParseHeader].
func PatchHops(msg []byte, hops uint8) {
	msg[1], msg[2], msg[3] = hops, 0, 0
}
