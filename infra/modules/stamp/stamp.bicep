// Everything of one region. A stamp shares nothing with another but the Cosmos DB account and the entry.

@description('Region, as Azure writes it in one word.')
param location string

@description('Seed of the names in this stamp.')
param token string

@description('Tags of all resources.')
param tags object

@description('The region as in regions.json: its name and, nearest first, where it looks for data.')
param region object

@description('Whether the stamp is spread over availability zones.')
param zoneRedundant bool

@description('FC1 or EP1.')
param plan string

@description('Memory of an instance on Flex Consumption, in MB.')
param instanceMemoryMB int

@description('Instances that are always running, for each group of functions.')
param alwaysReadyInstances int

@description('Most instances.')
param maximumInstances int

@description('SKU of the SignalR Service.')
param signalRSku string

@description('Added to the name of the SignalR Service.')
param signalRSuffix string

@description('Units of the SignalR Service.')
param signalRUnits int

@description('Resource group of the Cosmos DB account.')
param sharedGroupName string

@description('Name of the Cosmos DB account.')
param cosmosAccountName string

@description('Global address of the Cosmos DB account.')
param cosmosEndpoint string

@description('Name of the database.')
param databaseName string

@description('Name of the lease container.')
param leasesName string

@description('Cosmos DB role that appends and reads documents.')
param appenderRoleId string

@description('Workspace that takes the logs.')
param workspaceId string

@description('URL of an OpenTelemetry collector; empty for none.')
param otlpEndpoint string

@description('Origin of the web client: the only one that browsers may call from.')
param clientOrigin string

@description('Id of the only Front Door that may call the functions. Empty: everybody may.')
param frontDoorId string

@description('Object id of whoever uploads the package, where the plan does not take it itself; empty for nobody.')
param uploaderId string

@description('What the uploader is.')
param uploaderType string

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-${token}'
  location: location
  tags: tags
}

module storage 'storage.bicep' = {
  name: 'storage'
  params: {
    name: 'st${token}'
    location: location
    tags: tags
    zoneRedundant: zoneRedundant
    workspaceId: workspaceId
  }
}

module signalR 'signalr.bicep' = {
  name: 'signalr'
  params: {
    name: 'sigr-${token}${signalRSuffix}'
    location: location
    tags: tags
    sku: signalRSku
    units: signalRUnits
    clientOrigin: clientOrigin
    workspaceId: workspaceId
  }
}

module insights '../monitoring/component.bicep' = {
  name: 'insights'
  params: {
    name: 'appi-${token}'
    location: location
    tags: tags
    workspaceId: workspaceId
  }
}

module roles 'roles.bicep' = {
  name: 'roles'
  params: {
    principalId: identity.properties.principalId
    storageName: storage.outputs.name
    signalRName: signalR.outputs.name
    insightsName: insights.outputs.name
    uploaderId: uploaderId
    uploaderType: uploaderType
  }
}

module data '../data/access.bicep' = {
  name: 'data-access-${location}'
  scope: resourceGroup(sharedGroupName)
  params: {
    accountName: cosmosAccountName
    databaseName: databaseName
    leasesName: leasesName
    appenderRoleId: appenderRoleId
    principalId: identity.properties.principalId
  }
}

module settings 'settings.bicep' = {
  name: 'settings'
  params: {
    region: region
    identityId: identity.id
    clientId: identity.properties.clientId
    storageName: storage.outputs.name
    packageUrl: storage.outputs.packageUrl
    cosmosEndpoint: cosmosEndpoint
    signalREndpoint: signalR.outputs.endpoint
    insightsConnectionString: insights.outputs.connectionString
    otlpEndpoint: otlpEndpoint
    plan: plan
  }
}

module app 'app.bicep' = {
  name: 'app'
  params: {
    name: 'func-${token}'
    planName: 'plan-${token}'
    location: location
    tags: tags
    plan: plan
    zoneRedundant: zoneRedundant
    instanceMemoryMB: instanceMemoryMB
    alwaysReadyInstances: alwaysReadyInstances
    maximumInstances: maximumInstances
    identityId: identity.id
    packageContainerUrl: storage.outputs.packageContainerUrl
    settings: settings.outputs.values
    clientOrigin: clientOrigin
    frontDoorId: frontDoorId
  }
  // The first start already needs its rights.
  dependsOn: [roles, data]
}

output appName string = app.outputs.name
output hostName string = app.outputs.hostName
output storageName string = storage.outputs.name
output signalRId string = signalR.outputs.id
