// Looks at the system from outside.

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

module component 'component.bicep' = {
  name: 'availability-insights'
  params: {
    name: 'appi-${token}'
    location: location
    tags: tags
    workspaceId: workspaceId
  }
}

module tests 'availability-test.bicep' = [for item in (empty(entryUrl) ? regions : [{ name: 'entry', url: entryUrl }]): {
  name: 'availability-${item.name}'
  params: {
    name: item.name
    url: item.url
    token: token
    location: location
    tags: tags
    componentId: component.outputs.id
    actionGroupId: actionGroupId
  }
}]
