// Application Insights on the common workspace.

@description('Name of the component.')
param name string

@description('Region of the component.')
param location string

@description('Tags of the component.')
param tags object

@description('Workspace that keeps the data.')
param workspaceId string

resource component 'Microsoft.Insights/components@2020-02-02' = {
  name: name
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspaceId
    IngestionMode: 'LogAnalytics'
    DisableLocalAuth: true
  }
}

output id string = component.id
output name string = component.name
output connectionString string = component.properties.ConnectionString
