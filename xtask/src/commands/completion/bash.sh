# Completes `xtask` and `cargo xtask` in bash.

# Offers what the program says may follow these words, of which the last one is being typed.
_xtask_offer() {
    local program=$1 current=${!#} value _ kept=
    shift
    # bash takes `--format=js` for three words, of which it replaces the last one.
    [[ $COMP_WORDBREAKS == *=* && $current == *=* ]] && kept=${current%"${current##*=}"}
    compopt +o default +o bashdefault 2>/dev/null
    COMPREPLY=()
    while IFS=$'\t' read -r value _; do
        printf -v value %q "$value"
        COMPREPLY+=("${value#"$kept"}")
    done < <("$program" complete -- "$@" 2>/dev/null </dev/null)
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *[/=] ]] && compopt -o nospace 2>/dev/null
    return 0
}

# Puts the words up to the cursor into `words`.
_xtask_read_words() {
    local line=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=('')
}

_xtask() {
    local words
    _xtask_read_words
    _xtask_offer "${words[@]}"
}

# The function of cargo's own completion, once it is known.
_xtask_of_cargo=

# Takes over from cargo's own completion, if there is one, with the options that it has.
_xtask_take_over() {
    local spec
    spec=$(complete -p cargo 2>/dev/null)
    if [[ $spec =~ ' -F '([^ ]+) ]]; then
        [[ ${BASH_REMATCH[1]} == _xtask_cargo ]] && return
        _xtask_of_cargo=${BASH_REMATCH[1]}
        eval "${spec/ -F $_xtask_of_cargo/ -F _xtask_cargo}"
    fi
}

# Has bash-completion load cargo's own completion.
_xtask_load_cargo() {
    local loader
    for loader in _comp_load __load_completion _completion_loader; do
        declare -F "$loader" >/dev/null && "$loader" cargo >/dev/null 2>&1 && break
    done
    _xtask_take_over
}

_xtask_cargo() {
    local words at=1 program
    _xtask_read_words
    while [[ ${words[at]} == [+-]* ]]; do
        ((at++))
    done
    if [[ ${words[at]} == xtask && $at -lt $((${#words[@]} - 1)) ]]; then
        program=$(_xtask_built) || { COMPREPLY=(); compopt +o default +o bashdefault 2>/dev/null; return; }
        _xtask_offer "$program" "${words[@]:at+1}"
        return
    fi
    [[ -n $_xtask_of_cargo ]] || _xtask_load_cargo
    [[ -n $_xtask_of_cargo ]] && "$_xtask_of_cargo" "$@"
}

complete -F _xtask xtask
complete -p cargo >/dev/null 2>&1 || complete -F _xtask_cargo cargo
_xtask_take_over
