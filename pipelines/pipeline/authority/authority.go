// Package authority is a certificate authority for the machines of one network: it makes certificates by which
// nats-servers show clients, and one another, who they are. It knows nothing of NATS.
//
//	ca.pem, ca.key       the authority's own certificate, which clients need, and its key, which nobody else needs
//	HOST.pem, HOST.key   a server's certificate and its key, for that host alone
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// How long certificates are valid.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	hostLife      = 2 * 365 * 24 * time.Hour
	clocksDiffer  = time.Hour // a machine whose clock is behind takes a certificate that was made just now
)

// Authority signs certificates.
type Authority struct {
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Open returns the authority that keeps its files in dir, and makes it if there is none.
func Open(dir string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"))
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority in %s: %w: restore ca.pem and ca.key, or remove both for a new one",
			dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("certificate authority in %s: ca.pem is not one that was made here", dir)
	}
	return &Authority{dir, pair.Leaf, key}, nil
}

func create(dir string) (*Authority, error) {
	for _, name := range []string{"ca.pem", "ca.key"} { // half of an authority is not replaced: clients may know it
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("certificate authority in %s has %s alone: restore the other of ca.pem and ca.key, or "+
				"remove both for a new one", dir, name)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "bitnet1"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a := &Authority{dir, template, key}
	if a.certificate, err = a.sign("ca", template, key, authorityLife); err != nil {
		return nil, err
	}
	return a, nil
}

// Issue writes a certificate, and a new key, for the server that is reached as host: a name or an IP address. The
// certificate is good for a client as well: servers of a cluster connect to one another.
func (a *Authority) Issue(host string) error {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: host}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	_, err = a.sign(host, template, key, hostLife)
	return err
}

// sign writes the files of a certificate.
func (a *Authority) sign(name string, template *x509.Certificate, key *ecdsa.PrivateKey, life time.Duration) (
	*x509.Certificate, error) {
	now := time.Now()
	template.NotBefore, template.NotAfter = now.Add(-clocksDiffer), now.Add(life)
	signed, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	for _, file := range []struct {
		ending, kind string
		content      []byte
		mode         os.FileMode
	}{{".key", "PRIVATE KEY", secret, 0o600}, {".pem", "CERTIFICATE", signed, 0o644}} {
		if err := replace(filepath.Join(a.dir, name+file.ending),
			pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.content}), file.mode); err != nil {
			return nil, err
		}
	}
	return x509.ParseCertificate(signed)
}

// replace writes a file that nobody can read meanwhile who may not read it afterwards.
func replace(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".certificate-") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
