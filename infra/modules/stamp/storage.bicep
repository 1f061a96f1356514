// Where the Functions host keeps its locks, and the package it runs.

@description('Name of the storage account, unique in the world.')
param name string

@description('Region of the account.')
param location string

@description('Tags of the account.')
param tags object

@description('Whether the data is spread over availability zones.')
param zoneRedundant bool

@description('Workspace that takes the logs.')
param workspaceId string

var packageContainer = 'app-package'

resource account 'Microsoft.Storage/storageAccounts@2025-08-01' = {
  // checkov:skip=CKV_AZURE_35:identities guard the data, keys do not work; docs/security.md has the private option
  // checkov:skip=CKV_AZURE_59:see CKV_AZURE_35; no blob is public
  // checkov:skip=CKV_AZURE_206:nothing in it has to survive the region
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: zoneRedundant ? 'Standard_ZRS' : 'Standard_LRS' }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    publicNetworkAccess: 'Enabled'
    supportsHttpsTrafficOnly: true
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-08-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: { enabled: true, days: 7 }
    containerDeleteRetentionPolicy: { enabled: true, days: 7 }
  }
}

resource packages 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' = {
  parent: blobs
  name: packageContainer
  properties: { publicAccess: 'None' }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: blobs
  properties: {
    workspaceId: workspaceId
    // Who deleted something. Reads, and the writes by which the host renews its locks, would be most of the log.
    logs: [
      { category: 'StorageDelete', enabled: true }
    ]
  }
}

output name string = account.name
output packageContainerUrl string = '${account.properties.primaryEndpoints.blob}${packages.name}'

@description('The package of the Premium plan, which runs from a blob of this name.')
output packageUrl string = '${account.properties.primaryEndpoints.blob}${packages.name}/geo-events.zip'
