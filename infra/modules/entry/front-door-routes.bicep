// What lies behind Front Door: `/api/*` is the nearest healthy region, `/<region>/*` is that region and no other, and all
// else is the web client.

@description('Name of the profile.')
param profileName string

@description('Name of the endpoint.')
param endpointName string

@description('Function apps: { path, hostName, drained }.')
param origins array

@description('Where the web client is served, in the order of preference.')
param clientHostNames array

resource profile 'Microsoft.Cdn/profiles@2025-06-01' existing = {
  name: profileName
}

resource endpoint 'Microsoft.Cdn/profiles/afdEndpoints@2025-06-01' existing = {
  parent: profile
  name: endpointName
}

resource nearest 'Microsoft.Cdn/profiles/originGroups@2025-06-01' = {
  parent: profile
  name: 'nearest'
  properties: {
    healthProbeSettings: {
      probePath: '/api/health'
      probeProtocol: 'Https'
      probeRequestType: 'GET'
      probeIntervalInSeconds: 30
    }
    loadBalancingSettings: { sampleSize: 4, successfulSamplesRequired: 2, additionalLatencyInMilliseconds: 50 }
    sessionAffinityState: 'Disabled'
  }
}

resource nearestOrigins 'Microsoft.Cdn/profiles/originGroups/origins@2025-06-01' = [for origin in origins: {
  parent: nearest
  name: origin.path
  properties: {
    hostName: origin.hostName
    originHostHeader: origin.hostName
    httpsPort: 443
    priority: 1
    weight: 1000
    enforceCertificateNameCheck: true
    enabledState: origin.drained ? 'Disabled' : 'Enabled'
  }
}]

resource nearestRoute 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-06-01' = {
  parent: endpoint
  name: 'nearest'
  properties: {
    originGroup: { id: nearest.id }
    patternsToMatch: ['/api/*']
    supportedProtocols: ['Http', 'Https']
    httpsRedirect: 'Enabled'
    forwardingProtocol: 'HttpsOnly'
    linkToDefaultDomain: 'Enabled'
  }
  dependsOn: [nearestOrigins]
}

// A group of one origin has no choice, so it is not probed.
resource region 'Microsoft.Cdn/profiles/originGroups@2025-06-01' = [for origin in origins: {
  parent: profile
  name: origin.path
  properties: {
    loadBalancingSettings: { sampleSize: 4, successfulSamplesRequired: 2, additionalLatencyInMilliseconds: 50 }
    sessionAffinityState: 'Disabled'
  }
}]

resource regionOrigin 'Microsoft.Cdn/profiles/originGroups/origins@2025-06-01' = [for (origin, i) in origins: {
  parent: region[i]
  name: origin.path
  properties: {
    hostName: origin.hostName
    originHostHeader: origin.hostName
    httpsPort: 443
    priority: 1
    weight: 1000
    enforceCertificateNameCheck: true
    enabledState: 'Enabled'
  }
}]

resource regionRoute 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-06-01' = [for (origin, i) in origins: {
  parent: endpoint
  name: origin.path
  properties: {
    originGroup: { id: region[i].id }
    // `/<region>/api/x` arrives as `/api/x`.
    originPath: '/'
    patternsToMatch: ['/${origin.path}/*']
    supportedProtocols: ['Http', 'Https']
    httpsRedirect: 'Enabled'
    forwardingProtocol: 'HttpsOnly'
    linkToDefaultDomain: 'Enabled'
  }
  dependsOn: [regionOrigin]
}]

resource client 'Microsoft.Cdn/profiles/originGroups@2025-06-01' = {
  parent: profile
  name: 'client'
  properties: {
    healthProbeSettings: {
      probePath: '/'
      probeProtocol: 'Https'
      probeRequestType: 'HEAD'
      probeIntervalInSeconds: 240
    }
    loadBalancingSettings: { sampleSize: 4, successfulSamplesRequired: 2, additionalLatencyInMilliseconds: 0 }
    sessionAffinityState: 'Disabled'
  }
}

resource clientOrigins 'Microsoft.Cdn/profiles/originGroups/origins@2025-06-01' = [for (hostName, i) in clientHostNames: {
  parent: client
  name: 'copy-${i}'
  properties: {
    hostName: hostName
    originHostHeader: hostName
    httpsPort: 443
    priority: i + 1
    weight: 1000
    enforceCertificateNameCheck: true
    enabledState: 'Enabled'
  }
}]

resource clientRoute 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-06-01' = {
  parent: endpoint
  name: 'client'
  properties: {
    originGroup: { id: client.id }
    patternsToMatch: ['/*']
    supportedProtocols: ['Http', 'Https']
    httpsRedirect: 'Enabled'
    forwardingProtocol: 'HttpsOnly'
    linkToDefaultDomain: 'Enabled'
    cacheConfiguration: {
      queryStringCachingBehavior: 'IgnoreQueryString'
      compressionSettings: {
        isCompressionEnabled: true
        contentTypesToCompress: [
          'application/javascript'
          'application/json'
          'image/svg+xml'
          'text/css'
          'text/html'
          'text/javascript'
        ]
      }
    }
  }
  dependsOn: [clientOrigins]
}
