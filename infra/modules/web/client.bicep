// The web client: static files, readable by the world, also from the paired region.

@description('Name of the storage account, unique in the world.')
param name string

@description('Region of the account.')
param location string

@description('Tags of the account.')
param tags object

@description('Object id of the deployer, who uploads the files; empty for none.')
param deployerId string

@description('What the deployer is.')
param deployerType string

var roleIds = loadJsonContent('../../roles.json')
var roleType = 'Microsoft.Authorization/roleDefinitions'

resource account 'Microsoft.Storage/storageAccounts@2025-08-01' = {
  // checkov:skip=CKV_AZURE_35:a website is for the world
  // checkov:skip=CKV_AZURE_59:see CKV_AZURE_35
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_RAGRS' }
  properties: {
    accessTier: 'Hot'
    // The container `$web` is public as a website all the same, and nothing else is.
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    publicNetworkAccess: 'Enabled'
    supportsHttpsTrafficOnly: true
  }
}

resource website 'Microsoft.Storage/storageAccounts/blobServices@2025-08-01' = {
  parent: account
  name: 'default'
  properties: {
    staticWebsite: { enabled: true, indexDocument: 'index.html', errorDocument404Path: 'index.html' }
    deleteRetentionPolicy: { enabled: true, days: 7 }
    containerDeleteRetentionPolicy: { enabled: true, days: 7 }
  }
}

resource uploads 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(deployerId)) {
  name: guid(account.id, deployerId, roleIds.storageBlobDataContributor)
  scope: account
  properties: {
    principalId: deployerId
    principalType: deployerType
    roleDefinitionId: subscriptionResourceId(roleType, roleIds.storageBlobDataContributor)
  }
}

var primary = split(account.properties.primaryEndpoints.web, '/')[2]
var secondary = split(account.properties.secondaryEndpoints.web, '/')[2]

output name string = account.name
output url string = 'https://${primary}'

@description('Where the files are served, the place where they are written first.')
output hostNames array = [primary, secondary]
