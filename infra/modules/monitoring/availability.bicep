// Looks at the system from outside, from five places, every five minutes.

@description('Seed of the names.')
param token string

@description('Region of the tests.')
param location string

@description('Tags of all resources.')
param tags object

@description('Workspace that takes the results.')
param workspaceId string

@description('Who is told.')
param actionGroupId string

@description('Address of the common entry. Empty: the regions are tested one by one.')
param entryUrl string

@description('Regions by their own addresses: { name, url }.')
param regions array

var probes = empty(entryUrl) ? regions : [{ name: 'entry', url: entryUrl }]
// US West, US East, Ireland, Singapore, Australia East: Azure's names for them.
var places = [
  { Id: 'us-ca-sjc-azr' }
  { Id: 'us-va-ash-azr' }
  { Id: 'emea-gb-db3-azr' }
  { Id: 'apac-sg-sin-azr' }
  { Id: 'emea-au-syd-edge' }
]

module component 'component.bicep' = {
  name: 'availability-insights'
  params: {
    name: 'appi-${token}'
    location: location
    tags: tags
    workspaceId: workspaceId
  }
}

resource test 'Microsoft.Insights/webtests@2022-06-15' = [for probe in probes: {
  name: 'health-${probe.name}-${token}'
  location: location
  tags: union(tags, { 'hidden-link:${component.outputs.id}': 'Resource' })
  kind: 'standard'
  properties: {
    SyntheticMonitorId: 'health-${probe.name}-${token}'
    Name: 'health of ${probe.name}'
    Enabled: true
    Frequency: 300
    Timeout: 30
    Kind: 'standard'
    RetryEnabled: true
    Locations: places
    Request: {
      RequestUrl: '${probe.url}/api/health'
      HttpVerb: 'GET'
      ParseDependentRequests: false
    }
    ValidationRules: {
      ExpectedHttpStatusCode: 200
      SSLCheck: true
      SSLCertRemainingLifetimeCheck: 7
    }
  }
}]

resource alert 'Microsoft.Insights/metricAlerts@2018-03-01' = [for (probe, i) in probes: {
  name: 'unavailable-${probe.name}-${token}'
  location: 'global'
  tags: tags
  properties: {
    description: '${probe.url}/api/health does not answer 200 in at least two of ${length(places)} places.'
    severity: 1
    enabled: true
    scopes: [test[i].id, component.outputs.id]
    evaluationFrequency: 'PT1M'
    windowSize: 'PT5M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.WebtestLocationAvailabilityCriteria'
      webTestId: test[i].id
      componentId: component.outputs.id
      failedLocationCount: 2
    }
    actions: [{ actionGroupId: actionGroupId }]
  }
}]
