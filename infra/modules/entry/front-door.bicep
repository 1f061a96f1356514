// The one address of the system, and its guard. What lies behind it is in front-door-routes.bicep: the stamps are made
// in between, as they need the id of this Front Door.

@description('Name of the profile, and of its endpoint.')
param name string

@description('Tags of the profile.')
param tags object

@description('Requests that one address may send to WriteEvent in a minute.')
param writesPerMinute int

@description('Workspace that takes the logs.')
param workspaceId string

var sku = { name: 'Standard_AzureFrontDoor' }

resource profile 'Microsoft.Cdn/profiles@2025-06-01' = {
  name: name
  location: 'global'
  tags: tags
  sku: sku
  properties: { originResponseTimeoutSeconds: 60 }
}

resource endpoint 'Microsoft.Cdn/profiles/afdEndpoints@2025-06-01' = {
  parent: profile
  name: name
  location: 'global'
  tags: tags
  properties: { enabledState: 'Enabled' }
}

resource firewall 'Microsoft.Network/FrontDoorWebApplicationFirewallPolicies@2025-11-01' = {
  name: replace(name, '-', '')
  location: 'global'
  tags: tags
  sku: sku
  properties: {
    policySettings: { enabledState: 'Enabled', mode: 'Prevention', customBlockResponseStatusCode: 429 }
    customRules: {
      rules: [
        {
          name: 'WritesPerMinute'
          priority: 100
          enabledState: 'Enabled'
          ruleType: 'RateLimitRule'
          rateLimitDurationInMinutes: 1
          rateLimitThreshold: writesPerMinute
          matchConditions: [
            {
              matchVariable: 'RequestUri'
              operator: 'Contains'
              matchValue: ['/api/writeevent']
              transforms: ['Lowercase']
            }
          ]
          action: 'Block'
        }
      ]
    }
  }
}

resource guard 'Microsoft.Cdn/profiles/securityPolicies@2025-06-01' = {
  parent: profile
  name: 'firewall'
  properties: {
    parameters: {
      type: 'WebApplicationFirewall'
      wafPolicy: { id: firewall.id }
      associations: [
        { domains: [{ id: endpoint.id }], patternsToMatch: ['/*'] }
      ]
    }
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: profile
  properties: {
    workspaceId: workspaceId
    // The access log has a line per request: for drills only.
    logs: [
      { category: 'FrontDoorHealthProbeLog', enabled: true }
      { category: 'FrontDoorWebApplicationFirewallLog', enabled: true }
    ]
  }
}

output id string = profile.id
output name string = profile.name
output endpointName string = endpoint.name
output frontDoorId string = profile.properties.frontDoorId
output url string = 'https://${endpoint.properties.hostName}'
