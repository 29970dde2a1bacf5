# Completes `xtask` and `cargo xtask` in fish. cargo's own completion stays as it is: fish offers what both say.

# The built program that is newest in the nearest Cargo workspace.
function __xtask_built
    set -l folder $PWD
    while test -n "$folder" -a ! -e "$folder/Cargo.lock"
        set folder (string replace -r '/[^/]*$' '' -- $folder)
    end
    set -l target $folder/target
    test -n "$CARGO_TARGET_DIR"; and set target $CARGO_TARGET_DIR
    set -l built
    for file in $target/release/xtask $target/debug/xtask
        if test -f $file -a -x $file
            if test -z "$built"; or test $file -nt $built
                set built $file
            end
        end
    end
    test -n "$built"; and echo $built
end

# The words after `cargo` from the command on: none for `cargo +stable`.
function __xtask_words_of_cargo
    set -l words (commandline -opc)
    set -e words[1]
    while string match -q -r '^[+-]' -- $words[1]
        set -e words[1]
    end
    printf '%s\n' $words
end

function __xtask_is_called_by_cargo
    set -l words (__xtask_words_of_cargo)
    test "$words[1]" = xtask
end

# Offers what a program says may follow these words.
function __xtask_offer -a program
    $program complete -- $argv[2..-1] (commandline -ct) 2>/dev/null </dev/null
end

function __xtask_complete
    set -l words (commandline -opc)
    __xtask_offer $words
end

function __xtask_complete_cargo
    set -l words (__xtask_words_of_cargo)
    set -l program (__xtask_built)
    and __xtask_offer $program $words[2..-1]
end

complete -c xtask -f -a '(__xtask_complete)'
complete -c cargo -f -n __xtask_is_called_by_cargo -a '(__xtask_complete_cargo)'
