package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"slices"
	"unicode/utf8"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	// oidNodeID marks a node ID among the other names of a certificate.
	oidNodeID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 2312, 19, 1}
)

// Tags of RFC 5280's GeneralName.
const (
	tagOtherName = 0
	tagDNSName   = 2
	tagIPAddress = 7
)

// Names are what a certificate or a request says its owner is called. Names of other kinds are not read.
type Names struct {
	DNS   []string
	IPs   []net.IP
	Nodes []wire.NodeID
}

// Empty reports whether there is no name at all.
func (n Names) Empty() bool { return len(n.DNS)+len(n.IPs)+len(n.Nodes) == 0 }

// Extension makes the subjectAltName extension that carries the names, DNS names first and node IDs last.
func (n Names) Extension() (pkix.Extension, error) {
	var general []asn1.RawValue
	for _, name := range n.DNS {
		if name == "" || !isASCII(name) {
			return pkix.Extension{}, fmt.Errorf("DNS name %q: names are in ASCII and not empty; write others in their xn-- form", name)
		}
		general = append(general, contextual(tagDNSName, false, []byte(name)))
	}
	for _, ip := range n.IPs {
		b := ip.To4()
		if b == nil {
			b = ip.To16()
		}
		if b == nil {
			return pkix.Extension{}, fmt.Errorf("invalid IP address: %s", ip)
		}
		general = append(general, contextual(tagIPAddress, false, b))
	}
	for _, id := range n.Nodes {
		if id == "" || !utf8.ValidString(string(id)) {
			return pkix.Extension{}, fmt.Errorf("node ID %q: node IDs are in UTF-8 and not empty", id)
		}
		other, err := otherName(id)
		if err != nil {
			return pkix.Extension{}, err
		}
		general = append(general, other)
	}
	value, err := asn1.Marshal(general)
	return pkix.Extension{Id: oidSubjectAltName, Value: value}, err
}

func contextual(tag int, compound bool, b []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: b}
}

// otherName encodes a node ID: [0] { oid, [0] EXPLICIT UTF8String }.
func otherName(id wire.NodeID) (asn1.RawValue, error) {
	oid, err1 := asn1.Marshal(oidNodeID)
	text, err2 := asn1.Marshal(asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(id)})
	value, err3 := asn1.Marshal(contextual(0, true, text))
	return contextual(tagOtherName, true, slices.Concat(oid, value)), errors.Join(err1, err2, err3)
}

// NodeIDs returns the node IDs that a certificate carries, in its order.
func NodeIDs(cert *x509.Certificate) ([]wire.NodeID, error) {
	names, err := namesIn(cert.Extensions)
	return names.Nodes, err
}

// RequestNames returns the names that a certificate request asks for.
func RequestNames(req *x509.CertificateRequest) (Names, error) { return namesIn(req.Extensions) }

func namesIn(extensions []pkix.Extension) (Names, error) {
	for _, e := range extensions {
		if e.Id.Equal(oidSubjectAltName) {
			return ParseNames(e.Value)
		}
	}
	return Names{}, nil
}

// ParseNames reads the value of a subjectAltName extension. It fails if that is not DER or if a name of a kind that it
// reads is malformed.
func ParseNames(der []byte) (Names, error) {
	var names Names
	var seq asn1.RawValue
	rest, err := asn1.Unmarshal(der, &seq)
	switch {
	case err != nil:
		return Names{}, malformed(err)
	case len(rest) > 0 || seq.Class != asn1.ClassUniversal || seq.Tag != asn1.TagSequence || !seq.IsCompound:
		return Names{}, malformed(errors.New("not one sequence"))
	}
	for b := seq.Bytes; len(b) > 0; {
		var v asn1.RawValue
		if b, err = asn1.Unmarshal(b, &v); err == nil {
			err = names.add(v)
		}
		if err != nil {
			return Names{}, malformed(err)
		}
	}
	return names, nil
}

func malformed(err error) error { return fmt.Errorf("malformed subject alternative names: %w", err) }

func (n *Names) add(v asn1.RawValue) error {
	if v.Class != asn1.ClassContextSpecific {
		return errors.New("not a general name")
	}
	switch v.Tag {
	case tagOtherName:
		id, ours, err := parseOtherName(v)
		if err == nil && ours {
			n.Nodes = append(n.Nodes, id)
		}
		return err
	case tagDNSName:
		if v.IsCompound || len(v.Bytes) == 0 || !isASCII(string(v.Bytes)) {
			return errors.New("not a DNS name")
		}
		n.DNS = append(n.DNS, string(v.Bytes))
	case tagIPAddress:
		if v.IsCompound || len(v.Bytes) != net.IPv4len && len(v.Bytes) != net.IPv6len {
			return errors.New("not an IP address")
		}
		n.IPs = append(n.IPs, net.IP(slices.Clone(v.Bytes)))
	}
	return nil
}

// parseOtherName reads one otherName; ours is false for those of other types.
func parseOtherName(v asn1.RawValue) (id wire.NodeID, ours bool, err error) {
	if !v.IsCompound {
		return "", false, errors.New("other name is not constructed")
	}
	var oid asn1.RawValue
	rest, err := asn1.Unmarshal(v.Bytes, &oid)
	if err != nil {
		return "", false, err
	}
	want, err := asn1.Marshal(oidNodeID)
	if err != nil || string(oid.FullBytes) != string(want) {
		return "", false, err
	}
	var value, text asn1.RawValue
	if rest, err = asn1.Unmarshal(rest, &value); err != nil {
		return "", true, err
	}
	if len(rest) > 0 || value.Class != asn1.ClassContextSpecific || value.Tag != 0 || !value.IsCompound {
		return "", true, errors.New("node ID without its [0] tag")
	}
	if rest, err = asn1.Unmarshal(value.Bytes, &text); err != nil {
		return "", true, err
	}
	if len(rest) > 0 || !isNodeText(text) {
		return "", true, errors.New("node ID is not one UTF-8, IA5 or printable string")
	}
	return wire.NodeID(text.Bytes), true, nil
}

func isNodeText(v asn1.RawValue) bool {
	if v.Class != asn1.ClassUniversal || v.IsCompound || len(v.Bytes) == 0 {
		return false
	}
	switch v.Tag {
	case asn1.TagUTF8String:
		return utf8.Valid(v.Bytes)
	case asn1.TagIA5String, asn1.TagPrintableString:
		return isASCII(string(v.Bytes))
	}
	return false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
