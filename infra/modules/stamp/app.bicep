// The function app and its plan.

@description('Name of the app, unique in the world.')
param name string

@description('Name of the plan.')
param planName string

@description('Region of both.')
param location string

@description('Tags of both.')
param tags object

@description('FC1 or EP1.')
param plan string

@description('Whether the instances are spread over availability zones.')
param zoneRedundant bool

@description('Memory of an instance on Flex Consumption, in MB.')
param instanceMemoryMB int

@description('Instances that are always running, for each group of functions.')
param alwaysReadyInstances int

@description('Most instances.')
param maximumInstances int

@description('Resource id of the identity.')
param identityId string

@description('Blob container of the package on Flex Consumption.')
param packageContainerUrl string

@description('App settings.')
param settings object

@description('Origin of the web client.')
param clientOrigin string

@description('Id of the only Front Door that may call the functions. Empty: everybody may.')
param frontDoorId string

var isFlex = plan == 'FC1'
var behindFrontDoor = !empty(frontDoorId)

// Zones need an instance in two of them on Flex Consumption, in three on Elastic Premium.
var flexInstances = zoneRedundant ? max(alwaysReadyInstances, 2) : alwaysReadyInstances
var premiumInstances = zoneRedundant ? max(alwaysReadyInstances, 3) : alwaysReadyInstances
// Elastic Premium on Linux stops at 20 in some regions.
var premiumMaximum = min(maximumInstances, 20)

var flexSku = { name: 'FC1', tier: 'FlexConsumption' }
var premiumSku = { name: 'EP1', tier: 'ElasticPremium', capacity: premiumInstances }

// The functions with a change feed trigger scale each on its own; those with an HTTP trigger share their instances.
// One instance of each always runs: what wakes a sleeping trigger does not know a region's preferred locations.
var alwaysReadyGroups = ['http', 'function:Notifications', 'function:Materialized']
var alwaysReady = [for group in alwaysReadyGroups: { name: group, instanceCount: flexInstances }]

var flexConfig = {
  deployment: {
    storage: {
      type: 'blobContainer'
      value: packageContainerUrl
      authentication: { type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identityId }
    }
  }
  runtime: { name: 'custom', version: '1.0' }
  scaleAndConcurrency: {
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstances
    alwaysReady: alwaysReady
    triggers: { http: { perInstanceConcurrency: 100 } }
  }
}

// The service tag admits every Front Door of Azure, the header only ours. Both are needed.
var frontDoorOnly = [
  {
    name: 'front-door'
    description: 'Only the Front Door of this environment'
    priority: 100
    action: 'Allow'
    tag: 'ServiceTag'
    ipAddress: 'AzureFrontDoor.Backend'
    headers: { 'x-azure-fdid': [frontDoorId] }
  }
]

resource serverFarm 'Microsoft.Web/serverfarms@2025-03-01' = {
  // checkov:skip=CKV_AZURE_225:a parameter decides, as not every region has zones
  name: planName
  location: location
  tags: tags
  kind: isFlex ? 'functionapp' : 'elastic'
  sku: isFlex ? flexSku : premiumSku
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
    maximumElasticWorkerCount: isFlex ? null : premiumMaximum
  }
}

resource site 'Microsoft.Web/sites@2025-03-01' = {
  // checkov:skip=CKV_AZURE_17:browsers and devices have no client certificates
  // checkov:skip=CKV_AZURE_212:the plan keeps instances always ready
  // checkov:skip=CKV_AZURE_213:Flex Consumption has no health check of its own, and Front Door probes /api/health
  // checkov:skip=CKV_AZURE_222:public, but admits only the Front Door of this environment
  name: name
  location: location
  tags: tags
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: serverFarm.id
    httpsOnly: true
    clientAffinityEnabled: false
    publicNetworkAccess: 'Enabled'
    functionAppConfig: isFlex ? flexConfig : null
    siteConfig: {
      ftpsState: 'Disabled'
      http20Enabled: true
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ipSecurityRestrictions: behindFrontDoor ? frontDoorOnly : []
      ipSecurityRestrictionsDefaultAction: behindFrontDoor ? 'Deny' : 'Allow'
      // Packages are sent there, with an Entra ID token.
      scmIpSecurityRestrictionsUseMain: false
      scmIpSecurityRestrictionsDefaultAction: 'Allow'
      // Behind Front Door the client has the same origin as the functions.
      cors: {
        allowedOrigins: behindFrontDoor ? [] : [clientOrigin]
        supportCredentials: !behindFrontDoor
      }
      use32BitWorkerProcess: isFlex ? null : false
      minimumElasticInstanceCount: isFlex ? null : premiumInstances
      functionAppScaleLimit: isFlex ? null : premiumMaximum
    }
  }

  resource appSettings 'config' = {
    name: 'appsettings'
    properties: settings
  }

  resource noFtpPassword 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: { allow: false }
  }

  resource noScmPassword 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: { allow: false }
  }
}

output name string = site.name
output hostName string = site.properties.defaultHostName
