// Who may do what in one stamp: each role on the one resource that it is needed for.

@description('Object id of the function app\'s identity.')
param principalId string

@description('Name of the storage account.')
param storageName string

@description('Name of the SignalR Service.')
param signalRName string

@description('Name of the Application Insights component.')
param insightsName string

@description('Object id of whoever uploads the package; empty for nobody.')
param uploaderId string

@description('What the uploader is.')
param uploaderType string

var roleIds = loadJsonContent('../../roles.json')
var roleType = 'Microsoft.Authorization/roleDefinitions'

resource storage 'Microsoft.Storage/storageAccounts@2025-08-01' existing = {
  name: storageName
}

resource signalR 'Microsoft.SignalRService/signalR@2024-03-01' existing = {
  name: signalRName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

// The Functions host: locks, keys, and the package.
resource hostBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage.id, principalId, roleIds.storageBlobDataOwner)
  scope: storage
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(roleType, roleIds.storageBlobDataOwner)
  }
}

// The Functions host: its diagnostic events.
resource hostTables 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage.id, principalId, roleIds.storageTableDataContributor)
  scope: storage
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(roleType, roleIds.storageTableDataContributor)
  }
}

// `negotiate` signs tokens for browsers, `Notifications` sends to them.
resource pushes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(signalR.id, principalId, roleIds.signalRServiceOwner)
  scope: signalR
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(roleType, roleIds.signalRServiceOwner)
  }
}

// The Functions host: logs without a key.
resource logs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, principalId, roleIds.monitoringMetricsPublisher)
  scope: insights
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(roleType, roleIds.monitoringMetricsPublisher)
  }
}

// Elastic Premium runs the package from a blob that somebody has to put there.
resource uploads 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(uploaderId)) {
  name: guid(storage.id, uploaderId, roleIds.storageBlobDataContributor)
  scope: storage
  properties: {
    principalId: uploaderId
    principalType: uploaderType
    roleDefinitionId: subscriptionResourceId(roleType, roleIds.storageBlobDataContributor)
  }
}
