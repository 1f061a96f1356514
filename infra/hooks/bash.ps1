# Runs a hook in the Linux that Windows brings along (WSL), where the functions are built and tested.
param([Parameter(Mandatory)][string] $Script)
$ErrorActionPreference = 'Stop'

# What the hooks read from the azd environment, handed on as it is.
$env:WSLENV = 'AZURE_SUBSCRIPTION_ID:CLIENT_STORAGE:CLIENT_URL:FUNCTIONS_PLAN:STAMPS:GEO_EVENTS_PACKAGE/p'
wsl.exe --cd (Resolve-Path "$PSScriptRoot/../..").Path -- bash $Script
exit $LASTEXITCODE
