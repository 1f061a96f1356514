// One address, looked at from five places every five minutes, and the alert if it does not answer.

@description('Name of what is tested.')
param name string

@description('Address without the path.')
param url string

@description('Seed of the names.')
param token string

@description('Region of the test.')
param location string

@description('Tags of the resources.')
param tags object

@description('Application Insights component that takes the results.')
param componentId string

@description('Who is told.')
param actionGroupId string

// West US, East US, North Europe, Southeast Asia, Australia East: these are the names that tests know.
var places = [
  { Id: 'us-ca-sjc-azr' }
  { Id: 'us-va-ash-azr' }
  { Id: 'emea-gb-db3-azr' }
  { Id: 'apac-sg-sin-azr' }
  { Id: 'emea-au-syd-edge' }
]

resource webTest 'Microsoft.Insights/webtests@2022-06-15' = {
  name: 'health-${name}-${token}'
  location: location
  tags: union(tags, { 'hidden-link:${componentId}': 'Resource' })
  kind: 'standard'
  properties: {
    SyntheticMonitorId: 'health-${name}-${token}'
    Name: 'health of ${name}'
    Enabled: true
    Frequency: 300
    Timeout: 30
    Kind: 'standard'
    RetryEnabled: true
    Locations: places
    Request: {
      RequestUrl: '${url}/api/health'
      HttpVerb: 'GET'
      ParseDependentRequests: false
    }
    ValidationRules: {
      ExpectedHttpStatusCode: 200
      SSLCheck: true
      SSLCertRemainingLifetimeCheck: 7
    }
  }
}

resource alert 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: 'unavailable-${name}-${token}'
  location: 'global'
  tags: tags
  properties: {
    description: '${url}/api/health does not answer 200 to at least two of ${length(places)} places.'
    severity: 1
    enabled: true
    scopes: [webTest.id, componentId]
    evaluationFrequency: 'PT1M'
    windowSize: 'PT5M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.WebtestLocationAvailabilityCriteria'
      webTestId: webTest.id
      componentId: componentId
      failedLocationCount: 2
    }
    actions: [{ actionGroupId: actionGroupId }]
  }
}
