# Completes `xtask` and `cargo xtask` in PowerShell.

# The built program that is newest in the nearest Cargo workspace.
function __xtask_built {
    $folder = (Get-Location).ProviderPath
    while ($folder -and -not (Test-Path -LiteralPath (Join-Path $folder 'Cargo.lock'))) {
        $folder = Split-Path -Parent $folder
    }
    $target = $env:CARGO_TARGET_DIR
    if (-not $target) {
        if (-not $folder) { return }
        $target = Join-Path $folder 'target'
    }
    'release', 'debug' |
        ForEach-Object { Get-Item -LiteralPath (Join-Path $target "$_/xtask") -ErrorAction Ignore } |
        Sort-Object LastWriteTime -Descending |
        Select-Object -First 1 -ExpandProperty FullName
}

# cargo's own completion, if there is one. PowerShell has no public way to ask for it.
$__xtask_of_cargo = $null
try {
    $flags = [Reflection.BindingFlags]'NonPublic,Instance'
    $context = $ExecutionContext.GetType().GetField('_context', $flags).GetValue($ExecutionContext)
    $known = $context.GetType().GetProperty('NativeArgumentCompleters', $flags).GetValue($context)
    if ($known -and $known.ContainsKey('cargo')) { $__xtask_of_cargo = $known['cargo'] }
} catch { }

$__xtask_completer = {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition -or ($wordToComplete -eq '' -and $_.Extent.EndOffset -le $cursorPosition) } |
        ForEach-Object { "$_" })
    $program = $words[0]
    $at = 1
    if ((Split-Path -Leaf $program) -match '^cargo(\.exe)?$') {
        while ($at -lt $words.Count -and $words[$at] -match '^[+-]') { $at++ }
        if ($at -ge $words.Count -or $words[$at] -ne 'xtask') {
            if ($__xtask_of_cargo) { & $__xtask_of_cargo $wordToComplete $commandAst $cursorPosition }
            return
        }
        $program = __xtask_built
        $at++
    }
    if (-not $program) { return }
    $before = @($words | Select-Object -Skip $at)
    # PowerShell before 7.3 leaves out an empty argument.
    $current = if ($wordToComplete -eq '' -and $PSVersionTable.PSVersion -lt [version]'7.3') { '""' } else { $wordToComplete }
    $null | & $program complete '--' @before $current 2>$null | ForEach-Object {
        $value, $help = $_ -split "`t", 2
        if (-not $help) { $help = $value }
        [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
    }
}.GetNewClosure()

Register-ArgumentCompleter -Native -CommandName xtask, cargo -ScriptBlock $__xtask_completer
