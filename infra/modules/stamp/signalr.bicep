// The SignalR Service that the browsers of this region are connected to.

@description('Name of the service, unique in the world.')
param name string

@description('Region of the service.')
param location string

@description('Tags of the service.')
param tags object

@description('SKU of the service.')
param sku string

@description('Units of the service.')
param units int

@description('Origin of the web client.')
param clientOrigin string

@description('Workspace that takes the logs.')
param workspaceId string

resource signalR 'Microsoft.SignalRService/signalR@2024-03-01' = {
  name: name
  location: location
  tags: tags
  kind: 'SignalR'
  sku: { name: sku, capacity: units }
  properties: {
    features: [
      { flag: 'ServiceMode', value: 'Serverless' }
      { flag: 'EnableConnectivityLogs', value: 'True' }
    ]
    cors: { allowedOrigins: [clientOrigin] }
    disableAadAuth: false
    disableLocalAuth: true
    publicNetworkAccess: 'Enabled'
    // Browsers may connect, and the functions may call; nobody may connect as a server, as there is none.
    networkACLs: {
      defaultAction: 'Deny'
      publicNetwork: { allow: ['ClientConnection', 'RESTAPI'] }
    }
    tls: { clientCertEnabled: false }
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: signalR
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'AllLogs', enabled: true }
    ]
  }
}

output id string = signalR.id
output name string = signalR.name
output endpoint string = 'https://${signalR.properties.hostName}'
