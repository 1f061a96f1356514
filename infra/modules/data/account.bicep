// The Cosmos DB account: a replica in every region, and every replica takes writes.

@description('Name of the account, unique in the world.')
param name string

@description('Tags of the account.')
param tags object

@description('Regions as in regions.json. The first becomes the hub, which confirms writes.')
param regions array

@description('Names of the regions that are spread over availability zones. Can only be chosen when a region is added.')
param zoneRedundantRegions array

@description('Continuous7Days, Continuous30Days or Periodic.')
param backup string

@description('Whether the account is locked against deletion.')
param locked bool

@description('Workspace that takes the logs.')
param workspaceId string

var periodic = {
  type: 'Periodic'
  periodicModeProperties: {
    backupIntervalInMinutes: 240
    backupRetentionIntervalInHours: 168
    backupStorageRedundancy: 'Geo'
  }
}
var continuous = {
  type: 'Continuous'
  continuousModeProperties: { tier: backup }
}

resource account 'Microsoft.DocumentDB/databaseAccounts@2025-10-15' = {
  // checkov:skip=CKV_AZURE_99:identities guard the data, keys do not work; docs/security.md has the private option
  // checkov:skip=CKV_AZURE_101:see CKV_AZURE_99
  name: name
  location: regions[0].name
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    enableMultipleWriteLocations: true
    locations: [for (region, i) in regions: {
      locationName: region.name
      failoverPriority: i
      isZoneRedundant: contains(zoneRedundantRegions, region.name)
    }]
    // Has no effect while all regions write; is right on the day they no longer do.
    enableAutomaticFailover: true
    consistencyPolicy: { defaultConsistencyLevel: 'Session' }
    backupPolicy: backup == 'Periodic' ? periodic : continuous
    enablePerRegionPerPartitionAutoscale: true
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
    publicNetworkAccess: 'Enabled'
  }
}

resource lock 'Microsoft.Authorization/locks@2020-05-01' = if (locked) {
  name: 'events-are-here'
  scope: account
  properties: {
    level: 'CanNotDelete'
    notes: 'Holds all events. Set lockData to false before you delete the environment.'
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: account
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    // DataPlaneRequests writes a line per request: for drills only.
    logs: [{ category: 'ControlPlaneRequests', enabled: true }]
  }
}

output id string = account.id
output name string = account.name

@description('The global address. Leases belong to the address by which they were made, so every region uses this one.')
output endpoint string = account.properties.documentEndpoint
