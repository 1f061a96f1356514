// One resource group for what the regions share, one for each region's stamp. The regions are those of regions.json.
targetScope = 'subscription'

@description('Name of the environment: part of the names of the resource groups, seed of all other names.')
@minLength(1)
@maxLength(24)
param environmentName string

@description('Where the resource group of the shared resources lies. The regions of the system are in regions.json.')
@metadata({ azd: { type: 'location' } })
param location string

@description('Object id of whoever deploys: gets the right to upload the packages and the web client. Empty: nobody does.')
param principalId string = ''

@description('What the deployer is.')
@allowed([ 'User', 'Group', 'ServicePrincipal' ])
param principalType string = 'User'

@description('Plan of the function apps: Flex Consumption (FC1) or Elastic Premium (EP1).')
@allowed([ 'FC1', 'EP1' ])
param plan string = 'FC1'

@description('Memory of an instance on Flex Consumption, in MB.')
@allowed([ 512, 2048, 4096 ])
param instanceMemoryMB int = 2048

@description('Instances that are always running, for each group of functions. At least 2 in a zone redundant region.')
@minValue(1)
param alwaysReadyInstances int = 1

@description('Most instances a region scales out to.')
@minValue(40)
@maxValue(1000)
param maximumInstances int = 40

@description('How the world comes in: one Front Door, a Traffic Manager profile, or the regions by their own addresses only.')
@allowed([ 'frontDoor', 'trafficManager', 'none' ])
param entry string = 'frontDoor'

@description('Requests that one client address may send to WriteEvent in a minute through Front Door.')
@minValue(1)
param writesPerMinute int = 3000

@description('Regions of regions.json that are spread over availability zones. A region without zones refuses it.')
param zoneRedundantRegions array = []

@description('Regions of regions.json that are reached by their own path only: the common entry sends nothing there.')
param drainedRegions array = []

@description('Backup of Cosmos DB. Periodic is the way out if the subscription refuses continuous backup.')
@allowed([ 'Continuous7Days', 'Continuous30Days', 'Periodic' ])
param cosmosBackup string = 'Continuous7Days'

@description('Autoscale maximum of each container in RU/s, in steps of 1000. A tenth of it is paid at rest, in every region.')
param maxThroughput object = {
  events: 1000
  materialized: 1000
  leases: 1000
  quarantine: 1000
}

@description('Days until a document expires; 0 keeps it.')
param retentionDays object = {
  events: 30
  materialized: 0
  quarantine: 30
}

@description('Whether the Cosmos DB account is locked against deletion. `azd down` fails while it is.')
param lockData bool = false

@description('SKU of each SignalR Service. Free_F1 is for trials.')
@allowed([ 'Free_F1', 'Standard_S1', 'Premium_P1' ])
param signalRSku string = 'Standard_S1'

@description('Units of each SignalR Service; each carries 1000 connections.')
@minValue(1)
param signalRUnits int = 1

@description('Added to the names of the SignalR Services. Another one makes new services, and the apps move to them.')
@maxLength(8)
param signalRSuffix string = ''

@description('Who is mailed when an alert fires. Empty: the alerts are only seen in the portal.')
param alertEmail string = ''

@description('URL of an OpenTelemetry collector that takes OTLP over HTTP, for traces and metrics of the handlers. Empty: none.')
param otlpEndpoint string = ''

@description('Days that logs are kept.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('GB of logs taken in a day; what is above is lost. -1 for no limit.')
param logDailyCapGB int = 5

var topology = loadJsonContent('regions.json')
var locations = [for region in topology.regions: toLower(replace(region.name, ' ', ''))]
var token = uniqueString(subscription().id, environmentName, location)
var tags = { 'azd-env-name': environmentName }
var hasFrontDoor = entry == 'frontDoor'

resource sharedGroup 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

resource stampGroups 'Microsoft.Resources/resourceGroups@2025-04-01' = [for (region, i) in topology.regions: {
  name: 'rg-${environmentName}-${locations[i]}'
  location: locations[i]
  tags: tags
}]

module workspace 'modules/monitoring/workspace.bicep' = {
  name: 'workspace'
  scope: sharedGroup
  params: {
    name: 'log-${token}'
    location: location
    tags: tags
    retentionDays: logRetentionDays
    dailyCapGB: logDailyCapGB
  }
}

module account 'modules/data/account.bicep' = {
  name: 'cosmos-account'
  scope: sharedGroup
  params: {
    name: 'cosmos-${token}'
    tags: tags
    regions: topology.regions
    zoneRedundantRegions: zoneRedundantRegions
    backup: cosmosBackup
    locked: lockData
    workspaceId: workspace.outputs.id
  }
}

module database 'modules/data/database.bicep' = {
  name: 'cosmos-database'
  scope: sharedGroup
  params: {
    accountName: account.outputs.name
    maxThroughput: maxThroughput
    retentionDays: retentionDays
  }
}

module webClient 'modules/web/client.bicep' = {
  name: 'web-client'
  scope: sharedGroup
  params: {
    name: 'web${token}'
    location: location
    tags: tags
    deployerId: principalId
    deployerType: principalType
  }
}

module frontDoor 'modules/entry/front-door.bicep' = if (hasFrontDoor) {
  name: 'front-door'
  scope: sharedGroup
  params: {
    name: 'afd-${token}'
    tags: tags
    writesPerMinute: writesPerMinute
    workspaceId: workspace.outputs.id
  }
}

// One after the other: a new list of preferred locations restarts an app, and that must not happen everywhere at once.
@batchSize(1)
module stamps 'modules/stamp/stamp.bicep' = [for (region, i) in topology.regions: {
  name: 'stamp-${locations[i]}'
  scope: stampGroups[i]
  params: {
    location: locations[i]
    token: uniqueString(subscription().id, environmentName, locations[i])
    tags: tags
    region: region
    zoneRedundant: contains(zoneRedundantRegions, region.name)
    plan: plan
    instanceMemoryMB: instanceMemoryMB
    alwaysReadyInstances: alwaysReadyInstances
    maximumInstances: maximumInstances
    signalRSku: signalRSku
    signalRSuffix: signalRSuffix
    otlpEndpoint: otlpEndpoint
    signalRUnits: signalRUnits
    sharedGroupName: sharedGroup.name
    cosmosAccountName: account.outputs.name
    cosmosEndpoint: account.outputs.endpoint
    databaseName: database.outputs.name
    leasesName: database.outputs.leasesName
    appenderRoleId: database.outputs.appenderRoleId
    workspaceId: workspace.outputs.id
    clientOrigin: hasFrontDoor ? frontDoor!.outputs.url : webClient.outputs.url
    frontDoorId: hasFrontDoor ? frontDoor!.outputs.frontDoorId : ''
    uploaderId: plan == 'EP1' ? principalId : ''
    uploaderType: principalType
  }
}]

module routes 'modules/entry/front-door-routes.bicep' = if (hasFrontDoor) {
  name: 'front-door-routes'
  scope: sharedGroup
  params: {
    profileName: frontDoor!.outputs.name
    endpointName: frontDoor!.outputs.endpointName
    origins: [for (region, i) in topology.regions: {
      path: locations[i]
      hostName: stamps[i].outputs.hostName
      drained: contains(drainedRegions, region.name)
    }]
    clientHostNames: webClient.outputs.hostNames
  }
}

module trafficManager 'modules/entry/traffic-manager.bicep' = if (entry == 'trafficManager') {
  name: 'traffic-manager'
  scope: sharedGroup
  params: {
    name: 'traf-${token}'
    tags: tags
    endpoints: [for (region, i) in topology.regions: {
      name: locations[i]
      location: region.name
      hostName: stamps[i].outputs.hostName
      drained: contains(drainedRegions, region.name)
    }]
  }
}

module alerts 'modules/monitoring/alerts.bicep' = {
  name: 'alerts'
  scope: sharedGroup
  params: {
    token: token
    location: location
    tags: tags
    email: alertEmail
    workspaceId: workspace.outputs.id
    cosmosAccountId: account.outputs.id
    frontDoorProfileId: hasFrontDoor ? frontDoor!.outputs.id : ''
    signalRs: [for (region, i) in topology.regions: {
      location: locations[i]
      id: stamps[i].outputs.signalRId
    }]
  }
}

module availability 'modules/monitoring/availability.bicep' = {
  name: 'availability'
  scope: sharedGroup
  params: {
    token: token
    location: location
    tags: tags
    workspaceId: workspace.outputs.id
    actionGroupId: alerts.outputs.actionGroupId
    entryUrl: hasFrontDoor ? frontDoor!.outputs.url : ''
    regions: [for (region, i) in topology.regions: {
      name: locations[i]
      url: 'https://${stamps[i].outputs.hostName}'
    }]
  }
}

module workbook 'modules/monitoring/workbook.bicep' = {
  name: 'workbook'
  scope: sharedGroup
  params: {
    location: location
    tags: tags
    workspaceId: workspace.outputs.id
    cosmosAccountId: account.outputs.id
  }
}

output AZURE_LOCATION string = location
output AZURE_COSMOS_ENDPOINT string = account.outputs.endpoint
output CLIENT_URL string = hasFrontDoor ? frontDoor!.outputs.url : webClient.outputs.url
output CLIENT_STORAGE string = webClient.outputs.name
output FUNCTIONS_PLAN string = plan
output TRAFFIC_MANAGER_HOST string = entry == 'trafficManager' ? trafficManager!.outputs.fqdn : ''

@description('Where the hooks deploy, and where people and devices reach each region.')
output STAMPS array = [for (region, i) in topology.regions: {
  region: region.name
  resourceGroup: stampGroups[i].name
  app: stamps[i].outputs.appName
  storage: stamps[i].outputs.storageName
  url: hasFrontDoor ? '${frontDoor!.outputs.url}/${locations[i]}' : 'https://${stamps[i].outputs.hostName}'
}]
