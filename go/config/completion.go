package config

import (
	"io"
	"strings"
)

// WriteCompletion writes a bash script that completes directives, parameter names and file names for a program called
// prog.
func WriteCompletion(w io.Writer, prog string) error {
	name := "_" + strings.Map(identifier, prog) + "_completion"
	var words, cases strings.Builder
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
	}
	script := strings.NewReplacer("@NAME@", name, "@PROG@", shellQuote(prog), "@WORDS@", words.String(), "@CASES@", cases.String()).Replace(completionScript)
	_, err := io.WriteString(w, script)
	return err
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
    local cur="${COMP_WORDS[COMP_CWORD]}" params="" word i
    COMPREPLY=()
    if [[ "$cur" == -* ]]; then
        COMPREPLY=( $(compgen -W "@WORDS@--help --bash-completion --config -c" -- "$cur") )
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
        break
    done
    if [[ -n "$params" && "$cur" != "=" && "${COMP_WORDS[COMP_CWORD-1]}" != "=" ]]; then
        COMPREPLY=( $(compgen -W "$params" -- "$cur") )
        compopt -o nospace
    fi
}
complete -F @NAME@ @PROG@
`
