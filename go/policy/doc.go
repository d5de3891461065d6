// Package policy is the firewall of a mesh node: an ordered list of rules, compiled once, that decides what becomes of a
// packet by the four names it carries.
//
//	p, err := policy.Compile([]policy.Rule{
//		{Action: "accept", FromNode: "/(hub|edge)/", ToService: "control"},
//		{Action: "reject", ToService: "control"},
//	})
//	...
//	verdict := p.Judge("laptop", "edge", fromService, toService)
//
// It makes no I/O and starts no goroutines. A [Policy] never changes after [Compile], apart from its counters, and may
// be used by any number of goroutines at once.
//
// # Rules
//
// A rule has an action and up to four patterns: fromnode, tonode, fromservice and toservice. A packet matches if it
// matches every pattern that is given; an empty one is not given, so a rule without patterns matches everything. The
// first rule that matches decides. A packet that no rule matches is accepted. The actions, in any letter case:
//
//   - accept: the packet goes on its way.
//   - drop: it is gone, and nobody is told.
//   - reject: it is gone, and its sender is told "blocked by firewall". Package netceptor sends that notice.
//
// A pattern is compared with the whole name, upper and lower case being different, unless it begins with a slash. Then
// it is a regular expression (https://github.com/google/re2/wiki/Syntax) between two slashes: /edge-[0-9]+/. Flags such
// as (?i) may stand at its beginning.
//
// The expression is put between ^ and $ as it stands, without brackets around it. So /a|b/ means "begins with a, or
// ends with b", as it does in existing nodes whose configuration this one takes over. Group alternatives to match whole
// names: /(a|b)/.
//
// A packet carries services of up to eight bytes. A longer plain pattern for a service matches nothing.
//
// # What rules see
//
// Rules have no memory. They see every packet that a node originates, forwards or receives, each once: also answers,
// pings (toservice ping; the answer has fromservice ping), the notices about packets that could not be delivered
// (fromservice and toservice unreach), and streams, whose dialling end has a random service name. Rejecting what comes
// from a node also ends what that node answers. Let ping and unreach pass first in a list that ends with a rule for
// everything:
//
//	{Action: "accept", ToService: "/(ping|unreach)/"},
//	{Action: "accept", FromService: "ping"},
//	{Action: "accept", FromNode: "hub"},
//	{Action: "accept", ToNode: "hub"},
//	{Action: "drop"},
//
// Names prove nothing: a packet says who sent it, and any node on the way could say so too.
//
// # Cost
//
// A rule without regular expressions costs a few comparisons, and nothing is allocated. What a regular expression says
// about a name is remembered, for about a thousand names in each of the four fields, so that expressions do not run
// packet by packet.
//
// # Errors
//
// A rule that cannot be understood is an error ([RuleError]) that says its number, counted from 0, and the key. It is
// never left out or weakened: a rule that lost a pattern would match more than was asked for.
package policy
