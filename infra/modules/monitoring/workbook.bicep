// The page to look at first: what is accepted, how late it arrives, what fails.

@description('Region of the workbook.')
param location string

@description('Tags of the workbook.')
param tags object

@description('Workspace with the logs.')
param workspaceId string

@description('Cosmos DB account.')
param cosmosAccountId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'geo-events')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'geo-events'
    category: 'workbook'
    sourceId: workspaceId
    version: '1.0'
    serializedData: replace(loadTextContent('workbook.json'), '__COSMOS_ACCOUNT__', cosmosAccountId)
  }
}
