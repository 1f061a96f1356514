// What a person wants to be told, and who is told. The thresholds are a start: adjust them to what is normal here.

@description('Seed of the names.')
param token string

@description('Region of the alerts on logs.')
param location string

@description('Tags of all resources.')
param tags object

@description('Who is mailed; empty for nobody.')
param email string

@description('Workspace with the logs.')
param workspaceId string

@description('Cosmos DB account.')
param cosmosAccountId string

@description('Front Door profile; empty for none.')
param frontDoorProfileId string

@description('SignalR Services: { location, id }.')
param signalRs array

var noDimensions = []
var cosmosAlerts = [
  {
    name: 'cosmos-throttled'
    summary: 'Cosmos DB refused more than 100 requests in 5 minutes (429). Raise maxThroughput of the busy container.'
    severity: 2
    metric: 'TotalRequests'
    aggregation: 'Count'
    operator: 'GreaterThan'
    threshold: 100
    dimensions: [{ name: 'StatusCode', values: ['429'] }]
    window: 'PT5M'
  }
  {
    name: 'cosmos-busy'
    summary: 'A partition used more than 80 % of its throughput. Raise maxThroughput before requests are refused.'
    severity: 2
    metric: 'NormalizedRUConsumption'
    aggregation: 'Maximum'
    operator: 'GreaterThan'
    threshold: 80
    dimensions: noDimensions
    window: 'PT15M'
  }
  {
    name: 'cosmos-unavailable'
    summary: 'Cosmos DB failed requests in the last hour. See docs/operations.md, "A region is out".'
    severity: 1
    metric: 'ServiceAvailability'
    aggregation: 'Average'
    operator: 'LessThan'
    threshold: 99
    dimensions: noDimensions
    window: 'PT1H'
  }
]

var queryAlerts = [
  {
    name: 'feed-lag'
    summary: 'Change feed batches arrive more than 30 s after the newest of their events was accepted (95th percentile).'
    severity: 2
    query: loadTextContent('queries/feed-lag.kql')
  }
  {
    name: 'feed-stalled'
    summary: 'Events were accepted, and a change feed function of a region did not run at all.'
    severity: 1
    query: loadTextContent('queries/feed-stalled.kql')
  }
  {
    name: 'failed-invocations'
    summary: 'More than 5 invocations of a function failed in 15 minutes.'
    severity: 1
    query: loadTextContent('queries/failed-invocations.kql')
  }
  {
    name: 'quarantine'
    summary: 'Documents that are no events were put into quarantine. See docs/operations.md, "Quarantine".'
    severity: 2
    query: loadTextContent('queries/quarantine.kql')
  }
]

resource actionGroup 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'ag-${token}'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'geo-events'
    enabled: true
    emailReceivers: empty(email) ? [] : [{ name: 'operator', emailAddress: email, useCommonAlertSchema: true }]
  }
}

module cosmos 'metric-alert.bicep' = [for alert in cosmosAlerts: {
  name: 'alert-${alert.name}'
  params: {
    name: '${alert.name}-${token}'
    summary: alert.summary
    tags: tags
    severity: alert.severity
    resourceId: cosmosAccountId
    resourceType: 'Microsoft.DocumentDB/databaseAccounts'
    metric: alert.metric
    aggregation: alert.aggregation
    operator: alert.operator
    threshold: alert.threshold
    dimensions: alert.dimensions
    window: alert.window
    actionGroupId: actionGroup.id
  }
}]

module signalR 'metric-alert.bicep' = [for service in signalRs: {
  name: 'alert-signalr-full-${service.location}'
  params: {
    name: 'signalr-full-${service.location}-${token}'
    summary: 'More than 80 % of the connections that ${service.location} can hold are taken. Raise signalRUnits.'
    tags: tags
    severity: 2
    resourceId: service.id
    resourceType: 'Microsoft.SignalRService/SignalR'
    metric: 'ConnectionQuotaUtilization'
    aggregation: 'Maximum'
    operator: 'GreaterThan'
    threshold: 80
    dimensions: noDimensions
    window: 'PT5M'
    actionGroupId: actionGroup.id
  }
}]

module origins 'metric-alert.bicep' = if (!empty(frontDoorProfileId)) {
  name: 'alert-region-unhealthy'
  params: {
    name: 'region-unhealthy-${token}'
    summary: 'Front Door finds less than 90 % of its probes of a region answered.'
    tags: tags
    severity: 1
    resourceId: frontDoorProfileId
    resourceType: 'Microsoft.Cdn/profiles'
    metric: 'OriginHealthPercentage'
    aggregation: 'Average'
    operator: 'LessThan'
    threshold: 90
    dimensions: [{ name: 'OriginGroup', values: ['nearest'] }]
    window: 'PT5M'
    actionGroupId: actionGroup.id
  }
}

module logs 'query-alert.bicep' = [for alert in queryAlerts: {
  name: 'alert-${alert.name}'
  params: {
    name: '${alert.name}-${token}'
    summary: alert.summary
    location: location
    tags: tags
    severity: alert.severity
    workspaceId: workspaceId
    query: alert.query
    actionGroupId: actionGroup.id
  }
}]

output actionGroupId string = actionGroup.id
