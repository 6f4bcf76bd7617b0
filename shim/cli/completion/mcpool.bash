# Completion of mcpool for bash.

_mcpool_pids() {
    local directory names directories=("${MCPOOL_STATS-}")
    [ -n "${MCPOOL_STATS-}" ] ||
        directories=(/run/mcpool "${XDG_RUNTIME_DIR:-/nonexistent}/mcpool" "/tmp/mcpool-$EUID")
    for directory in "${directories[@]}"; do
        names=("$directory"/*-*)
        names=("${names[@]##*/}")
        printf '%s\n' "${names[@]%-*}"
    done | grep -x '[0-9]*'
}

_mcpool_reasons() {
    mcpool explain 2>/dev/null | cut -d' ' -f1
}

# Reasons, in lower case when the word is.
_mcpool_complete_reason() {
    local reasons
    reasons=$(_mcpool_reasons)
    case $1 in
    [a-z]*) reasons=${reasons,,} ;;
    esac
    _mcpool_complete -W "--help $reasons" -- "$1"
}

_mcpool_complete() {
    mapfile -t COMPREPLY < <(compgen "$@")
}

_mcpool() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} i
    if [ "$COMP_CWORD" = 1 ]; then
        _mcpool_complete -W "run check stat top doctor metrics explain off on dry flush version help" -- "$word"
        return
    fi
    case ${COMP_WORDS[1]} in
    run)
        # What follows the first word that is no option is completed as a command of its own.
        for ((i = 2; i < COMP_CWORD; i++)); do
            case ${COMP_WORDS[i]} in
            --servers | --max-idle | --max-idle-total | --idle-timeout | --max-lifetime | \
                --keepalive | --deepbind | --log | --log-level | --share) ((i++)) ;;
            -*) ;;
            *)
                if declare -F _command_offset >/dev/null; then
                    _command_offset "$i"
                else
                    _mcpool_complete -f -- "$word"
                fi
                return
                ;;
            esac
        done
        case $before in
        --log) _mcpool_complete -f -W stderr -- "$word" ;;
        --log-level) _mcpool_complete -W "error warning info debug" -- "$word" ;;
        --share) _mcpool_complete -W "on off always" -- "$word" ;;
        --servers | --max-idle | --max-idle-total | --idle-timeout | --max-lifetime | --keepalive | \
            --deepbind) ;;
        *)
            case $word in
            -*)
                _mcpool_complete -W "--servers --max-idle --max-idle-total --idle-timeout
                    --max-lifetime --keepalive --deepbind --log --log-level --share --dry-run
                    --strict --help -v" -- "$word"
                ;;
            *) _mcpool_complete -c -- "$word" ;;
            esac
            ;;
        esac
        ;;
    check)
        case $word in
        -*) _mcpool_complete -W "--config --help" -- "$word" ;;
        [0-9]*) _mcpool_complete -W "$(_mcpool_pids)" -- "$word" ;;
        *) _mcpool_complete -c -- "$word" ;;
        esac
        ;;
    stat)
        case $word in
        -*) _mcpool_complete -W "--json --watch --help" -- "$word" ;;
        *) _mcpool_complete -W "$(_mcpool_pids)" -- "$word" ;;
        esac
        ;;
    top) _mcpool_complete -W "--delay --help" -- "$word" ;;
    doctor)
        case $word in
        -*) _mcpool_complete -W "--json --help" -- "$word" ;;
        *) _mcpool_complete -W "$(_mcpool_pids)" -- "$word" ;;
        esac
        ;;
    metrics)
        case $before in
        --output) _mcpool_complete -f -- "$word" ;;
        --listen) ;;
        *) _mcpool_complete -W "--output --listen --help" -- "$word" ;;
        esac
        ;;
    off | on | dry | flush)
        case $word in
        -*) _mcpool_complete -W "--help" -- "$word" ;;
        *) _mcpool_complete -W "$(_mcpool_pids)" -- "$word" ;;
        esac
        ;;
    explain) _mcpool_complete_reason "$word" ;;
    help) _mcpool_complete -W "run check stat top doctor metrics explain off on dry flush" -- "$word" ;;
    esac
}

complete -F _mcpool mcpool
