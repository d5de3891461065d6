package config

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// builtIn are the words that are no directives, with their help; those with a file take a file name.
var builtIn = []struct {
	name, help string
	file       bool
}{
	{"--help", "Show this help and exit", false},
	{"--config", "Read directives from a file: YAML, or by its extension JSON or TOML; also -c", true},
	{"--config-v2", "Read one file of the second format and nothing else; its directives are not given on the command line", false},
	{"--check", "Say what is wrong with the configuration, its files, keys and ports, and start nothing", false},
	{"--show-config", "Print the configuration as it takes effect, secrets hidden, and start nothing", false},
	{"--reference", "Print a page about all directives", false},
	{"--json-schema", "Print a JSON schema of configuration files, for editors", false},
	{"--bash-completion", "Print a completion script for bash", false},
	{"--zsh-completion", "Print a completion script for zsh", false},
	{"--fish-completion", "Print a completion script for fish", false},
}

// WriteCompletion writes a bash script that completes directives, parameter names, values and file names for a program
// called prog.
func WriteCompletion(w io.Writer, prog string) error {
	name := "_" + strings.Map(identifier, prog) + "_completion"
	var words, cases, values strings.Builder
	for _, d := range schema() {
		if d.hidden {
			continue
		}
		words.WriteString("--" + d.name + " ")
		params := strings.Join(d.paramNames(), "= ")
		if params != "" {
			params += "="
		}
		cases.WriteString("            " + d.name + ") params=\"" + params + "\" ;;\n")
		for i := range d.params {
			if words := d.params[i].values(); words != nil {
				values.WriteString("            " + d.name + "." + d.params[i].name + ") COMPREPLY=( $(compgen -W \"" + strings.Join(words, " ") + "\" -- \"$value\") ); return ;;\n")
			}
		}
	}
	for _, b := range builtIn {
		words.WriteString(b.name + " ")
	}
	script := strings.NewReplacer("@NAME@", name, "@PROG@", shellQuote(prog), "@WORDS@", words.String(), "@CASES@", cases.String(), "@VALUES@", values.String()).Replace(completionScript)
	_, err := io.WriteString(w, script)
	return err
}

// values are the words that a parameter may be, nil if there are too many to name.
func (q *param) values() []string {
	if q.kind == kindBool {
		return []string{"true", "false"}
	}
	return q.choices
}

// WriteZshCompletion writes the like for zsh.
func WriteZshCompletion(w io.Writer, prog string) error {
	name := "_" + strings.Map(identifier, prog)
	var words, cases, values strings.Builder
	add := func(word, help string) { fmt.Fprintf(&words, "        %s\n", shellQuote(zshWord(word)+":"+help)) }
	for _, d := range schema() {
		if d.hidden {
			continue
		}
		add("--"+d.name, d.help)
		var params []string
		for i := range d.params {
			q := &d.params[i]
			params = append(params, shellQuote(zshWord(q.name+"=")+":"+q.help))
			if of := q.values(); of != nil {
				fmt.Fprintf(&values, "            %s.%s) compset -P '*='; compadd -- %s ;;\n", d.name, q.name, strings.Join(of, " "))
			}
		}
		fmt.Fprintf(&cases, "            %s) params=(%s) ;;\n", d.name, strings.Join(params, " "))
	}
	for _, b := range builtIn {
		add(b.name, b.help)
	}
	script := strings.NewReplacer("@NAME@", name, "@PROG@", prog, "@QUOTED@", shellQuote(prog), "@WORDS@", words.String(), "@CASES@", cases.String(), "@VALUES@", values.String()).Replace(zshScript)
	_, err := io.WriteString(w, script)
	return err
}

func zshWord(s string) string { return strings.ReplaceAll(s, ":", "\\:") }

const zshScript = `#compdef @PROG@
# zsh completion, made by --zsh-completion
@NAME@() {
    local -a words_ params
    local i word directive
    words_=(
@WORDS@    )
    if [[ "$PREFIX" == -* ]]; then
        _describe -o 'directive' words_
        return
    fi
    for (( i = CURRENT - 1; i > 1; i-- )); do
        word="${words[i]}"
        [[ "$word" == -* ]] || continue
        word="${${word#-}#-}"
        directive="${word:l}"
        case "$directive" in
            c|config) _files; return ;;
@CASES@        esac
        break
    done
    if [[ "$PREFIX" == *=* ]]; then
        case "$directive.${${PREFIX%%=*}:l}" in
@VALUES@        esac
        return
    fi
    (( ${#params} )) && _describe -V 'parameter' params -S ''
}
compdef @NAME@ @QUOTED@
`

// WriteFishCompletion writes the like for fish.
func WriteFishCompletion(w io.Writer, prog string) error {
	var b strings.Builder
	name := "__" + strings.Map(identifier, prog) + "_directive"
	quoted := fishQuote(prog)
	fmt.Fprintf(&b, "# fish completion, made by --fish-completion\nfunction %s\n", name)
	b.WriteString("    set -l last ''\n    for word in (commandline -opc)[2..-1]\n        string match -q -- '-*' $word; and set last (string lower (string replace -r '^--?' '' -- $word))\n    end\n    test \"$last\" = \"$argv[1]\"\nend\n")
	fmt.Fprintf(&b, "complete -c %s -f\n", quoted)
	for _, w := range builtIn {
		more := ""
		if w.file {
			more = " -r -F -s c"
		}
		fmt.Fprintf(&b, "complete -c %s -l %s%s -d %s\n", quoted, strings.TrimPrefix(w.name, "--"), more, fishQuote(w.help))
	}
	for _, d := range schema() {
		if d.hidden {
			continue
		}
		fmt.Fprintf(&b, "complete -c %s -l %s -d %s\n", quoted, d.name, fishQuote(d.help))
		for i := range d.params {
			q := &d.params[i]
			words := []string{q.name + "="}
			for _, v := range q.values() {
				words = append(words, q.name+"="+v)
			}
			for _, word := range slices.Compact(words) {
				fmt.Fprintf(&b, "complete -c %s -n %s -a %s -d %s\n", quoted, fishQuote(name+" "+d.name), fishQuote(word), fishQuote(q.help))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

// shellQuote writes s so that bash reads it as one word.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// identifier replaces what cannot stand in the name of a bash function.
func identifier(r rune) rune {
	if r < 128 && (r == '_' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z') {
		return r
	}
	return '_'
}

// completionScript undoes what readline does to "param=value" (it makes three words of it) by looking at the words left
// of the cursor for the last one that begins with a dash.
const completionScript = `# bash completion, made by --bash-completion
@NAME@() {
    local cur="${COMP_WORDS[COMP_CWORD]}" params="" directive="" param="" value="" word i
    COMPREPLY=()
    if [[ "$cur" == -* ]]; then
        COMPREPLY=( $(compgen -W "@WORDS@-c" -- "$cur") )
        return
    fi
    for (( i = COMP_CWORD - 1; i > 0; i-- )); do
        word="${COMP_WORDS[i]}"
        [[ "$word" == -* ]] || continue
        word="${word#-}"
        word="${word#-}"
        case "${word,,}" in
            c|config) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
@CASES@        esac
        directive="${word,,}"
        break
    done
    if [[ "$cur" == "=" ]]; then
        param="${COMP_WORDS[COMP_CWORD-1]}"
    elif [[ "${COMP_WORDS[COMP_CWORD-1]}" == "=" ]]; then
        param="${COMP_WORDS[COMP_CWORD-2]}" value="$cur"
    fi
    if [[ -n "$param" ]]; then
        case "$directive.${param,,}" in
@VALUES@        esac
        return
    fi
    if [[ -n "$params" && "$cur" != "=" && "${COMP_WORDS[COMP_CWORD-1]}" != "=" ]]; then
        COMPREPLY=( $(compgen -W "$params" -- "$cur") )
        compopt -o nospace
    fi
}
complete -F @NAME@ @PROG@
`
