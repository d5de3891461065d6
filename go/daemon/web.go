package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/files"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/metrics"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/web"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const (
	tailBytes = 16 << 10 // Of a unit's output, on the page.
	pageUnits = 200      // The newest units, on the page.
	maxSecret = 4 << 10  // Longest password or token file.
)

// metricsListener serves metrics, health and the page.
func (d *Daemon) metricsListener(s config.MetricsListener) (_ io.Closer, err error) {
	cfg := web.Config{
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", metrics.ContentType)
			_, _ = io.WriteString(w, d.Metrics())
		}),
		Ready: d.notReady, Pprof: s.Pprof, Username: s.Username, Log: d.log,
	}
	if s.Page {
		cfg.State, cfg.Watch, cfg.Tail = d.pageState, d.pageChanges, d.unitTail
	}
	if cfg.Password, err = secretFile(s.PasswordFile); err != nil {
		return nil, err
	}
	if cfg.Token, err = secretFile(s.TokenFile); err != nil {
		return nil, err
	}
	profile, err := d.ServerProfile(s.TLS)
	if err != nil {
		return nil, err
	}
	l, err := d.listenStream(endpoints(s)[0])
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if profile != nil {
		conf, err := d.serverTLS(s.TLS, (*identity.ServerProfile).SocketConfig)
		if err != nil {
			return nil, err
		}
		l = tls.NewListener(l, conf)
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() && cfg.Token == "" && cfg.Username == "" && (profile == nil || !profile.AsksClients()) {
		d.log.Warn("Metrics are shown to anyone who can reach their address", "address", address)
	}
	ctx, stop := context.WithCancel(d.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.runServer("Metrics listener", func() error { return web.Serve(ctx, l, cfg) })
	}()
	d.log.Info("Serving metrics on " + address)
	return closing(func() error { stop(); <-done; return nil }), nil
}

// closing is a Close method.
type closing func() error

func (c closing) Close() error { return c() }

// secretFile reads a password or token, without the white space around it. It is read at the start and at each reload
// that changes the directive.
func secretFile(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	data, info, err := files.ReadOnce(name, maxSecret)
	if errors.Is(err, files.ErrTooLarge) {
		return "", fmt.Errorf("%s holds more than %d bytes, which no secret needs", name, maxSecret)
	}
	if err != nil {
		return "", err
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s holds a secret and can be used by everybody (mode %04o): chmod o= %s", name, info.Mode().Perm(), name)
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return "", fmt.Errorf("%s holds no secret", name)
	}
	return secret, nil
}

// notReady says what is missing before the node can do what it is configured for.
func (d *Daemon) notReady() error {
	if d.ctx.Err() != nil {
		return errors.New("the node is shutting down")
	}
	backends := d.Node.Backends()
	listens := slices.ContainsFunc(backends, func(b netceptor.BackendStatus) bool { return b.Kind == "listener" })
	if len(backends) > 0 && !listens && len(d.Node.Links()) == 0 {
		return errors.New("no link is up")
	}
	return nil
}

// pageUnit is a unit on the page.
type pageUnit struct {
	ID      workceptor.UnitID `json:"id"`
	Type    string            `json:"type"`
	Node    string            `json:"node"`
	State   string            `json:"state"`
	Detail  string            `json:"detail"`
	Size    int64             `json:"size"`
	Created *time.Time        `json:"created,omitempty"`
}

// pageState is what the page shows: three replies of the control service, and the newest units.
func (d *Daemon) pageState() any {
	state := map[string]any{}
	for _, command := range []string{"version", "topology", "links"} {
		reply, err := d.Control.Ask(d.ctx, command)
		if err != nil {
			reply = map[string]string{"error": err.Error()}
		}
		state[command] = reply
	}
	units := d.pageUnits()
	state["units_total"] = len(units)
	state["units"] = units[:min(len(units), pageUnits)]
	return state
}

func (d *Daemon) pageUnits() []pageUnit {
	list := d.Work.List()
	units := make([]pageUnit, 0, len(list))
	for id, s := range list {
		u := pageUnit{ID: id, Type: s.WorkType, Node: string(d.Node.ID()), State: s.StateName(), Detail: s.Detail, Size: s.StdoutSize}
		if remote, ok := s.Extra.(*unit.RemoteExtra); ok {
			u.Type, u.Node = remote.RemoteWorkType, string(remote.RemoteNode)
		}
		if !s.Created.IsZero() {
			u.Created = new(s.Created.UTC())
		}
		units = append(units, u)
	}
	sort.Slice(units, func(i, j int) bool {
		a, b := units[i], units[j]
		return cmp.Or(created(b).Compare(created(a)), cmp.Compare(a.ID, b.ID)) < 0
	})
	return units
}

func created(u pageUnit) time.Time {
	if u.Created == nil {
		return time.Time{}
	}
	return *u.Created
}

// pageChanges has a value when the mesh or a unit has changed, until ctx ends.
func (d *Daemon) pageChanges(ctx context.Context) <-chan struct{} {
	mesh, work := d.Node.Subscribe(1), d.Work.Subscribe(1) // What is lost by a queue of one is a change as well.
	changed := make(chan struct{}, 1)
	d.wg.Go(func() {
		defer mesh.Close()
		defer work.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-mesh.C:
				if !ok {
					return
				}
			case _, ok := <-work.C:
				if !ok {
					return
				}
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	return changed
}

// unitTail is the end of a unit's output as it is now.
func (d *Daemon) unitTail(id string) ([]byte, error) {
	status, err := d.Work.Status(workceptor.UnitID(id))
	if err != nil {
		return nil, fmt.Errorf("%w %s", web.ErrUnknownUnit, id)
	}
	from := max(0, status.StdoutSize-tailBytes)
	if status.StdoutSize == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, 10*time.Second)
	defer cancel()
	out, err := d.Work.Results(ctx, workceptor.UnitID(id), from)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	return io.ReadAll(io.LimitReader(out, status.StdoutSize-from))
}
