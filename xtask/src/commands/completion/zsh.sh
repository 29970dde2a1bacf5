# Completes `xtask` and `cargo xtask` in zsh.

(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }

# Offers what the program says may follow these words, of which the last one is being typed.
_xtask_offer() {
    local program=$1 value help item
    local -a words_to_offer folders_to_offer
    shift
    while IFS=$'\t' read -r value help; do
        item=${value//:/\\:}${help:+:$help}
        if [[ $value == *[/=] ]]; then
            folders_to_offer+=("$item")
        else
            words_to_offer+=("$item")
        fi
    done < <("$program" complete -- "$@" 2>/dev/null </dev/null)
    _describe -t xtask xtask words_to_offer -- folders_to_offer -S ''
}

_xtask() {
    _xtask_offer "${(Q)words[1]}" "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}"
}

_xtask_cargo() {
    local at=2 program
    while [[ ${words[at]} == [+-]* ]]; do
        (( at++ ))
    done
    if [[ ${words[at]} == xtask ]] && (( at < CURRENT )); then
        program=$(_xtask_built) || return 1
        _xtask_offer "$program" "${(@Q)words[at+1,CURRENT-1]}" "${(Q)PREFIX}"
    else
        ${=_xtask_of_cargo} "$@"
    fi
}

# Takes over from cargo's own completion.
[[ ${_comps[cargo]} == _xtask_cargo ]] || typeset -g _xtask_of_cargo=${_comps[cargo]:-_default}
compdef _xtask xtask
compdef _xtask_cargo cargo
