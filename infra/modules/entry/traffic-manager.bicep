// The nearest healthy region by DNS. Each app must own the public name and a certificate for it.

@description('Name of the profile, and the first part of its DNS name.')
param name string

@description('Tags of the profile.')
param tags object

@description('Function apps: { name, location, hostName, drained }.')
param endpoints array

resource profile 'Microsoft.Network/trafficmanagerprofiles@2022-04-01' = {
  name: name
  location: 'global'
  tags: tags
  properties: {
    trafficRoutingMethod: 'Performance'
    dnsConfig: { relativeName: name, ttl: 30 }
    monitorConfig: {
      protocol: 'HTTPS'
      port: 443
      path: '/api/health'
      intervalInSeconds: 30
      timeoutInSeconds: 10
      toleratedNumberOfFailures: 2
    }
    endpoints: [for endpoint in endpoints: {
      name: endpoint.name
      type: 'Microsoft.Network/trafficManagerProfiles/externalEndpoints'
      properties: {
        target: endpoint.hostName
        endpointLocation: endpoint.location
        endpointStatus: endpoint.drained ? 'Disabled' : 'Enabled'
        customHeaders: [{ name: 'host', value: endpoint.hostName }]
      }
    }]
  }
}

output fqdn string = profile.properties.dnsConfig.fqdn
