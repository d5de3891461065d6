package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/service"
)

var errNoConfigFile = errors.New("no configuration file was provided, reload function not set")

// Reload reads the command line's files again and brings the node to what they say now: links, services, types of work,
// TLS profiles, signing keys, firewall rules, the log level and the trace of packets. What did not change is not touched. It is all or
// nothing: if anything cannot be done, the node goes on as it was and the error says why. dryRun stops when all that can
// fail is prepared. The changes are those that were (or would be) made. Errors are of type [*control.ReloadError].
func (d *Daemon) Reload(ctx context.Context, dryRun bool) ([]config.Change, error) {
	changes, err := d.reload(ctx, dryRun)
	if err != nil {
		d.log.Warn("Reload not successful: " + err.Error())
		if _, ok := errors.AsType[*control.ReloadError](err); !ok {
			err = &control.ReloadError{Code: control.ReloadFailed, Err: err}
		}
		return nil, err
	}
	if !dryRun {
		for _, c := range changes {
			d.log.Info("Reloaded: " + c.String())
		}
		d.log.Info("Configuration reloaded", "changes", len(changes))
	}
	return changes, nil
}

// controlReload is Reload for the control service.
func (d *Daemon) controlReload(ctx context.Context, dryRun bool) ([]string, error) {
	changes, err := d.Reload(ctx, dryRun)
	texts := make([]string, len(changes))
	for i, c := range changes {
		texts[i] = c.String()
	}
	return texts, err
}

func (d *Daemon) reload(ctx context.Context, dryRun bool) ([]config.Change, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.ctx.Err() != nil {
		return nil, errors.New("the node is shutting down")
	}
	old := d.Config()
	if len(old.Files) == 0 {
		return nil, errNoConfigFile
	}
	next, err := old.Reread()
	if err != nil {
		return nil, err
	}
	if next.Action != config.Run {
		return nil, errors.New("the configuration describes no node any more")
	}
	changes := config.Diff(old, next)
	if err := reloadable(changes); err != nil {
		return nil, err
	}
	defer d.sockets.release()
	t, err := d.prepare(next, changes)
	if err != nil || dryRun {
		return changes, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return changes, t.apply()
}

// reloadable refuses what a node is until it ends: its ID, its data directory, and how long its links may be silent.
func reloadable(changes []config.Change) error {
	for _, c := range changes {
		if c.Directive().Name != "node" {
			continue
		}
		fixed := slices.DeleteFunc(slices.Clone(c.Params), func(p string) bool { return p == "firewallrules" })
		if len(fixed) > 0 || c.Kind != config.Changed {
			err := fmt.Errorf("a non-reloadable config action 'node' was modified or added. Must restart receptor for these changes to take effect (%s)",
				cmp.Or(strings.Join(fixed, ", "), string(c.Kind)))
			return &control.ReloadError{Code: control.ReloadNotReloadable, Err: err}
		}
	}
	return nil
}

// transaction takes a node from one configuration to the next.
type transaction struct {
	d        *Daemon
	next     *config.Config
	profiles *tlsProfiles
	firewall *policy.Policy
	signer   *signer

	gone   []*piece           // To be closed.
	fresh  []config.Directive // To be opened while everything old still runs.
	late   []config.Directive // To be opened when the services that are gone have been closed: one of them has what these want.
	last   []config.Directive // The same of links: nothing that can fail is left when the first link is closed.
	opened []*piece
	closed []*piece
}

// prepare does all that can be done, and can fail, without touching what runs. The sockets are to be released then.
func (d *Daemon) prepare(next *config.Config, changes []config.Change) (*transaction, error) {
	t := &transaction{d: d, next: next}
	if err := safe(next); err != nil {
		return nil, err
	}
	var err error
	if t.profiles, err = d.loadProfiles(next); err != nil {
		return nil, err
	}
	if t.firewall, err = compileFirewall(next.Node().FirewallRules); err != nil {
		return nil, err
	}
	if t.signer, err = d.loadSigner(next); err != nil {
		return nil, err
	}
	for _, c := range changes {
		if c.Kind == config.Added {
			continue
		}
		i := slices.IndexFunc(d.pieces, func(p *piece) bool {
			return p.directive.Name == c.Old.Name && p.directive.Pos == c.Old.Pos && !slices.Contains(t.gone, p)
		})
		if i >= 0 {
			t.gone = append(t.gone, d.pieces[i])
			if err := d.sockets.hold(d.pieces[i]); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range changes {
		if c.Kind != config.Removed {
			if err := t.plan(c.New); err != nil {
				return nil, located(c.New.Pos, err)
			}
		}
	}
	return t, nil
}

// plan sees to it that a directive can be opened, and says when.
func (t *transaction) plan(directive config.Directive) error {
	if err := openable(directive.Section); err != nil {
		return err
	}
	var before []*piece // What has to be closed before.
	for _, e := range endpoints(directive.Section) {
		owner, err := t.d.sockets.reserve(e, t.next, t.gone)
		if err != nil {
			return err
		}
		if owner != nil {
			before = append(before, owner)
		}
	}
	free := true
	for _, p := range t.gone {
		if name := exclusive(p.directive.Section); name != "" && name == exclusive(directive.Section) {
			before = append(before, p)
			free = false
		}
	}
	switch {
	case isPeer(directive.Section), slices.ContainsFunc(before, func(p *piece) bool { return isLink(p.directive.Section) }):
		t.last = append(t.last, directive)
	case before != nil:
		t.late = append(t.late, directive)
	default:
		t.fresh = append(t.fresh, directive)
		return nil
	}
	switch s := directive.Section.(type) {
	case config.ControlService:
		if free && s.Service != "" {
			return t.d.offerable(s.Service)
		}
	case config.IPRouter:
		return nameable(s.Interface, before)
	}
	return nil
}

// offerable returns an error if something on this node has the name of a service already.
func (d *Daemon) offerable(name string) error {
	l, err := d.Node.ListenStream(name, nil, nil)
	if err != nil {
		return fmt.Errorf("error listening on Receptor network: %w", err)
	}
	return l.Close()
}

// nameable returns an error if the system has an interface of that name that is not a router's which is leaving.
func nameable(name string, leaving []*piece) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return nil
	}
	for _, p := range leaving {
		if r, ok := p.closer.(*service.Router); ok && r.Name() == name {
			return nil
		}
	}
	return fmt.Errorf("there is an interface %s already", name)
}

// exclusive is what only one directive can have, its sockets aside; "" for nothing.
func exclusive(section any) string {
	var name, workType string
	switch s := section.(type) {
	case config.TCPClient:
		name = s.Service
	case config.UDPClient:
		name = s.Service
	case config.UnixClient:
		name = s.Service
	case config.CommandService:
		name = s.Service
	case config.ControlService:
		name = s.Service
	case config.IPRouter:
		name = s.NetworkName
	case config.WorkCommand:
		workType = s.WorkType
	case config.WorkPython:
		workType = s.WorkType
	case config.WorkKubernetes:
		workType = s.WorkType
	}
	switch {
	case name != "":
		return "service " + name
	case workType != "":
		return "work type " + workType
	}
	return ""
}

// apply opens what is new, closes what is gone, and makes the rest take effect. On an error everything is as before.
func (t *transaction) apply() error {
	d := t.d
	profiles := d.profiles.Swap(t.profiles)
	d.target = t.next
	if err := t.exchange(); err != nil {
		d.profiles.Store(profiles)
		d.target = d.Config()
		return errors.Join(err, t.undo())
	}
	d.cfg.Store(t.next)
	d.signing.Store(t.signer)
	d.Node.SetPolicy(t.firewall)
	d.Node.SetTrace(t.next.Trace())
	d.Node.SetWorkCommands(d.Work.WorkTypes())
	if err := d.Work.SetLimits(workLimits(t.next)); err != nil {
		d.log.Error("limits of work are as before", "err", err)
	}
	if d.setLog != nil {
		d.setLog(t.next.Log())
	}
	t.settle()
	d.sockets.tellUnused(d.log)
	return nil
}

func (t *transaction) exchange() error {
	if err := t.begin(t.fresh); err != nil {
		return err
	}
	t.end(func(p *piece) bool { return !isLink(p.directive.Section) })
	if err := t.begin(t.late); err != nil {
		return err
	}
	t.end(func(p *piece) bool { return isLink(p.directive.Section) })
	return t.begin(t.last)
}

func (t *transaction) begin(directives []config.Directive) error {
	for _, directive := range directives {
		p, err := t.d.openPiece(directive)
		if err != nil {
			return err
		}
		t.opened = append(t.opened, p)
	}
	return nil
}

// end closes those of the gone pieces.
func (t *transaction) end(those func(*piece) bool) {
	for _, p := range t.gone {
		if those(p) {
			t.d.endPiece(p)
			t.closed = append(t.closed, p)
		}
	}
}

// undo closes what was opened and opens what was closed.
func (t *transaction) undo() (problems error) {
	for _, p := range slices.Backward(t.opened) {
		t.d.endPiece(p)
	}
	for _, p := range t.closed {
		if err := t.d.startPiece(p); err != nil {
			problems = errors.Join(problems, fmt.Errorf("%s %s could not be opened again: %w", p.directive.Name, p.directive.Label(), err))
		}
	}
	return problems
}

// settle gives each piece its directive of the new configuration, in the new order.
func (t *transaction) settle() {
	left := slices.DeleteFunc(slices.Concat(t.d.pieces, t.opened), func(p *piece) bool { return slices.Contains(t.gone, p) })
	byText := make(map[string][]*piece)
	for _, p := range left {
		key := p.directive.Fingerprint()
		byText[key] = append(byText[key], p)
	}
	pieces := make([]*piece, 0, len(left))
	for _, directive := range t.next.Directives {
		key := directive.Fingerprint()
		if same := byText[key]; len(same) > 0 {
			same[0].directive = directive
			pieces = append(pieces, same[0])
			byText[key] = same[1:]
		}
	}
	t.d.pieces = pieces
}
