// Package config turns a command line and its YAML files into one validated [Config].
//
// Directives come from arguments (`--tcp-peer hub:2222 cost=2`) and from files named by `--config FILE`; both are read
// into the same ordered list. One table (schema.go) says what directives and parameters exist: it drives both parsers,
// the help text, the completion for three shells, the checks, the JSON schema for editors (receptor.schema.json) and the
// page of all directives (REFERENCE.md), so they cannot disagree.
//
//	cfg, err := config.ParseArgs([]string{"--node", "id=hub", "--tcp-listener", "2222"})
//
// [ParseArgs] and [LoadFile] return either a complete Config, defaults filled in and every static rule checked, or an
// [*Error] that lists everything found wrong, in the order it was written. A Config is never changed afterwards and may
// be shared between goroutines. What needs the network or other files (is the port free, does the name resolve) is
// checked by whoever opens it.
//
// # Files
//
// A file is a YAML list. Each item is a directive name, or a mapping of one directive name to nothing, to text (the
// directive's bare value) or to a mapping of parameters:
//
//	---
//	- node:
//	    id: hub
//	- log-level: debug
//	- tcp-listener:
//	    port: 2222
//	- local-only
//
// Scalars follow YAML 1.1: yes, no, on, off, y and n are booleans, 0660 is octal. Where such a reading would silently
// turn one thing into another (the node ID `yes` into true, 5.5 into 5.500000, port 27520.7 into 27520) the value is
// refused with the advice to quote it. An integer where text is wanted is taken as decimal text.
//
// # Files of version 2
//
// A file whose root is a mapping with `version: 2`, and the one that --config-v2 names, has kinds of directives as keys, in
// any letter case, each with one mapping or a list of them. Its extension says what it is written in: .json, .toml, anything
// else YAML.
//
//	version: 2
//	node:
//	  id: hub
//	tcp-listeners:
//	  - port: 2222
//
// It is checked as strictly as the other format, but for unknown keys, of which files in use have some: they are warnings.
// The singular and the plural of every key are understood. A cost of 0 is 1, an empty service of the control service is
// "control", and a tls-client needs no certificate. Nothing in the environment overrides what a file says. Directives take
// effect in a fixed order of their kinds.
//
// # Comparing
//
// [Diff] tells what is different in meaning between two configurations: order, spelling and defaults make no difference.
// [Directive.Label] is what tells directives of one kind apart, the parameters marked with names() in the table.
// [WriteEffective] writes a configuration with all defaults as a file that reads as the same one; parameters marked
// private() are hidden.
//
// # Firewall rules
//
// The node's firewallrules are a list, of which the first rule that matches a packet decides. Package policy says what
// rules mean; note that /a|b/ matches what begins with a or ends with b, and /(a|b)/ the whole names:
//
//	---
//	- node:
//	    id: hub
//	    firewallrules:
//	      - action: accept
//	        fromnode: /(edge|laptop)-[0-9]+/
//	        toservice: control
//	      - action: reject
//	        toservice: control
//
// On a command line they are a JSON list of the same:
//
//	--node id=hub 'firewallrules=[{"action":"reject","toservice":"control"}]'
//
// Each problem is reported with the number of its rule, counted from 0, and the line. Values are text: one that YAML
// reads as something else is refused with the advice to quote it.
//
// # Decisions
//
//   - An empty argument is an error: to give an empty value, name the parameter (`id=`).
//   - `--config` needs a file name. It may stand before other directives; they keep their order.
//   - A directive that may be given once is checked over arguments and all files together.
//   - A key written twice in one mapping is an error that names both lines.
//   - A file is watched for changes if it is of version 2, or if `process` says so.
//   - `trace` logs at level debug, since it says more than all else together; equal lines are counted beyond ten.
//   - `log-level` without a value is info, the same as leaving it out.
//   - A permissions value over 0777 is refused: 660 is what people write who mean 0660.
//   - A node ID names a folder, so it must be valid UTF-8 of at most 255 bytes without `/` and control characters, and
//     neither `.` nor `..`.
//   - `tcplisten: PORT` listens on the loopback address; other addresses are given as HOST:PORT.
//   - TLS profiles may be used before they are defined. A name that two tls-servers or two tls-clients have is an error:
//     the later would silently replace the earlier. A server and a client may share a name.
//   - `cert-init` refuses keys of less than 1024 bits, which TLS libraries do not accept; a certificate whose end is not
//     after its start is refused, and so are output files that are also input or each other.
//   - `work-limits`, and `allowpty` and `maxrunning` of types of work, and `interpreter` of work-python, are additions.
//   - Without a `tokenexpiration` signatures are good for 5 minutes; one that is not after now is refused.
//   - `allowedpeers:` with nothing after it is the same as leaving it out; `allowedpeers: []` admits nobody.
//   - What belongs to the older Receptor written in Python (INI files, the sub-commands node, controller, ping, send and
//     status, rnp:// addresses, plugin directives, message buffers on disk) is refused: its wire protocol is another one.
package config
