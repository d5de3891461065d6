package identity

import (
	"bufio"
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/files"
)

// InitFiles makes an authority and writes its certificate and key. The key is written first: a certificate without it is
// of no use. A file that holds a private key is not overwritten: what it has signed could not be renewed.
func InitFiles(commonName string, bits int, v Validity, outCert, outKey string) error {
	if err := spareKeys(outCert, outKey); err != nil {
		return err
	}
	a, err := Init(commonName, bits, v)
	if err != nil {
		return err
	}
	if err := SaveKey(outKey, a.Key.(*rsa.PrivateKey)); err != nil {
		return err
	}
	return orWithout(outKey, SaveCertificate(outCert, a.Cert))
}

// RequestFiles writes a request with the key of the file inKey, or with a new one of bits, which it writes to outKey. A file
// that holds a private key is not overwritten.
func RequestFiles(commonName string, names Names, inKey string, bits int, outKey, outReq string) error {
	if err := spareKeys(outKey, outReq); err != nil {
		return err
	}
	if inKey != "" {
		key, err := LoadKey(inKey)
		if err != nil {
			return err
		}
		req, err := Request(commonName, names, key)
		if err != nil {
			return err
		}
		return SaveRequest(outReq, req)
	}
	key, err := NewKey(bits)
	if err != nil {
		return err
	}
	req, err := Request(commonName, names, key)
	if err != nil {
		return err
	}
	if err := SaveKey(outKey, key); err != nil {
		return err
	}
	return orWithout(outKey, SaveRequest(outReq, req))
}

// orWithout takes a key that was just written away if what belongs to it could not be: nobody has used it, and the next
// attempt would spare it.
func orWithout(outKey string, err error) error {
	if info, lost := os.Lstat(outKey); err != nil && lost == nil && info.Mode().IsRegular() {
		return errors.Join(err, os.Remove(outKey))
	}
	return err
}

// SignFiles signs a request that lies in a file, after confirm has seen it; nil agrees to everything.
func SignFiles(reqFile, caCert, caKey, outCert string, v Validity, confirm func(*x509.CertificateRequest) error) error {
	req, err := LoadRequest(reqFile)
	if err != nil {
		return err
	}
	a, err := LoadAuthority(caCert, caKey)
	if err != nil {
		return err
	}
	names, err := RequestNames(req)
	switch {
	case err != nil:
		return fmt.Errorf("cannot sign: %s: %w", reqFile, err)
	case names.Empty():
		return errors.New("cannot sign: no names found in certificate")
	}
	if confirm != nil {
		if err := confirm(req); err != nil {
			return err
		}
	}
	if err := spareKeys(outCert); err != nil {
		return err
	}
	cert, err := a.Sign(req, v)
	if err != nil {
		return err
	}
	return SaveCertificate(outCert, cert)
}

// spareKeys refuses to write to files that hold private keys, which nothing brings back.
func spareKeys(paths ...string) error {
	for _, path := range paths {
		content, _, err := files.Read(path, maxFile)
		if err == nil && bytes.Contains(content, []byte("PRIVATE KEY-----")) {
			return fmt.Errorf("%s %w and holds a private key, which would be lost: move it away or write to another file", path, ErrExists)
		}
	}
	return nil
}

// Confirm asks a person whether to sign a request.
func Confirm(out io.Writer, in io.Reader) func(*x509.CertificateRequest) error {
	return func(req *x509.CertificateRequest) error {
		names, err := RequestNames(req)
		if err != nil {
			return err
		}
		var b strings.Builder
		fmt.Fprintf(&b, "Requested certificate:\n  Subject: %s\n", printableText(req.Subject.String()))
		fmt.Fprintf(&b, "  Encryption Algorithm: %s\n  Signature Algorithm: %s\n  Names:\n", keyName(req.PublicKey), req.SignatureAlgorithm)
		for _, name := range names.DNS {
			fmt.Fprintf(&b, "    DNS Name: %s\n", printableText(name))
		}
		for _, ip := range names.IPs {
			fmt.Fprintf(&b, "    IP Address: %s\n", ip)
		}
		for _, id := range names.Nodes {
			fmt.Fprintf(&b, "    Receptor Node ID: %s\n", printableText(string(id)))
		}
		b.WriteString("Sign certificate (yes/no)? ")
		if _, err := io.WriteString(out, b.String()); err != nil {
			return err
		}
		return answer(in)
	}
}

// maxAnswer is the longest answer that is read, in bytes.
const maxAnswer = 1024

// answer reads one line and returns nil if it says yes.
func answer(in io.Reader) error {
	line, err := bufio.NewReader(io.LimitReader(in, maxAnswer)).ReadString('\n')
	words := strings.Fields(line)
	switch {
	case len(words) == 0 && errors.Is(err, io.EOF):
		return fmt.Errorf("%w: there is nobody to answer; verify=true signs without asking", err)
	case len(words) == 0 && err != nil:
		return err
	case len(words) == 0:
		return errors.New("unexpected newline")
	case strings.EqualFold(words[0], "y"), strings.EqualFold(words[0], "yes"):
		return nil
	}
	return errors.New("user declined")
}
